#!/bin/sh
# Stands in for `gantry` in a test of how the yardstick starts it: says that the upstream itself is
# its endpoint, and stays until it is told to end.
if [ "$1" = "--version" ]; then
    echo "gantry 9.9.9"
    exit 0
fi
# What is applied changes nothing.
if [ "$1" = "apply" ]; then
    exit 0
fi
for argument; do
    case "$argument" in
        bench=*) url="${argument#bench=}" ;;
    esac
done
echo "{\"endpoint\":\"$url\",\"agent_key\":\"key\",\"admin\":\"unused\"}"
exec sleep 60
