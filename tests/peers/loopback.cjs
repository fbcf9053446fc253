// Preload for servers that others wrote (`node --require ./loopback.cjs ...`): a server that would listen
// on every interface listens on 127.0.0.1, and its address is printed on stderr as `listening on HOST:PORT`.
const net = require('node:net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...options) {
  if (/^\d+$/.test(String(options[0]))) {
    if (typeof options[1] !== 'string') options.splice(1, 0, '127.0.0.1');
  } else if (options[0] && options[0].port !== undefined) {
    options[0] = { ...options[0], host: '127.0.0.1' };
  }
  this.once('listening', () => {
    const { address, port } = this.address();
    console.error(`listening on ${address}:${port}`);
  });
  return listen.apply(this, options);
};
