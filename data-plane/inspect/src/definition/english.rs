//! What is said to models in English.

use super::phrases::{CONTEXT, EXFILTRATION, OVERRIDE, PRECEDENCE, Phrase, SECRECY, phrase, unless};

const ORDERS: &str = "instructions|instruction|prompt|prompts|directives|directions|guidelines|guardrails|training|\
                      commands|orders|rules";
const NOT: &str = "not|never|don't|dont|mustn't|shouldn't|cannot|can't|avoid";
const PEOPLE: &str = "user|users|human|humans|customer|customers|operator|person|anyone|anybody";
const HAND: &str = "pass|include|put|provide|add|append|copy|attach|insert|forward|supply|place|write|fill|enter|paste|\
                    summarize|summarise|embed|encode";
const TELL: &str = "tell|telling|inform|informing|warn|warning";
const SAY: &str = "mention|mentioning|reveal|revealing|disclose|disclosing|explain|explaining|notify|notifying|alert|\
                   alerting|report|say";
const THIS: &str = "this|that|it|anything|what|these|any";
/// What may stand between a negation and its verb.
const EVER: &str = "ever|even|also|directly|explicitly|actually|then|to|simply";
const TOOL: &str = "tool|tools|function|functions";

pub(super) const PHRASES: [Phrase; 39] = [
    phrase(
        OVERRIDE,
        &[
            (0, "ignore|disregard|forget|bypass|discard"),
            (4, "previous|prior|earlier|above|preceding|foregoing|past"),
            (2, ORDERS),
        ],
    ),
    phrase(
        OVERRIDE,
        &[
            (0, "override|overrides|supersede|supersedes"),
            (3, "previous|prior|earlier|preceding|your"),
            (2, "instructions|prompt|directives|guidelines|guardrails|training"),
        ],
    ),
    phrase(
        OVERRIDE,
        &[
            (0, "ignore|disregard|forget|bypass"),
            (2, "your|any|all|the"),
            (2, "system|safety|developer|user's|users|user|original|own"),
            (
                2,
                "instructions|instruction|prompt|guidelines|guardrails|restrictions|policy|policies|request|requests",
            ),
        ],
    ),
    phrase(
        OVERRIDE,
        &[
            (0, "ignore|disregard|forget"),
            (1, "everything|anything|all|what"),
            (3, "told|said|instructed|taught"),
        ],
    ),
    // `Ignore everything before the first heading` says what it is about.
    phrase(
        OVERRIDE,
        &[(0, "ignore|disregard|forget"), (1, "everything|anything|all|what"), (3, "before|above")],
    )
    .ends(),
    phrase(
        OVERRIDE,
        &[
            (0, "your"),
            (0, "new|real|true|actual"),
            (1, "instructions|objective|directive|directives|orders"),
        ],
    ),
    phrase(
        OVERRIDE,
        &[
            (0, "you"),
            (0, "are"),
            (0, "now"),
            (0, "in|a|an|the|dan"),
            (3, "mode|assistant|admin|administrator|unrestricted|developer|jailbroken|agent"),
        ],
    ),
    phrase(OVERRIDE, &[(0, "from"), (0, "now"), (0, "on"), (1, "you|always|every|ignore|respond|answer")]),
    // `If it is not found, tell the user` is something else.
    unless(SECRECY, &[(0, NOT), (0, TELL), (2, PEOPLE)], "apart").within(2),
    unless(SECRECY, &[(0, NOT), (0, EVER), (0, TELL), (2, PEOPLE)], "apart").within(3),
    phrase(SECRECY, &[(0, NOT), (0, SAY), (0, THIS), (8, PEOPLE)]).within(2),
    phrase(SECRECY, &[(0, NOT), (0, EVER), (0, SAY), (0, THIS), (8, PEOPLE)]).within(3),
    phrase(
        SECRECY,
        &[
            (0, NOT),
            (0, "under"),
            (0, "any|no"),
            (0, "circumstance|circumstances"),
            (1, "tell|inform|warn|mention|reveal|disclose|notify"),
            (5, PEOPLE),
        ],
    ),
    phrase(
        SECRECY,
        &[
            (0, NOT),
            (1, "mention|mentioning|reveal|disclose"),
            (0, "this|that|it|these"),
            (2, "instruction|instructions|step|steps|requirement|note|rule|tool|parameter|to"),
        ],
    )
    .within(2),
    phrase(SECRECY, &[(0, "without"), (1, "telling|informing|mentioning|revealing"), (4, PEOPLE)]),
    phrase(SECRECY, &[(0, "without"), (1, "user|user's|users"), (1, "knowledge|noticing|knowing|awareness")]),
    phrase(
        SECRECY,
        &[
            (0, "user|users|human"),
            (1, "must|should|shall"),
            (0, "not|never"),
            (3, "know|notice|aware|told|informed"),
        ],
    ),
    phrase(
        SECRECY,
        &[
            (0, "user|users|human"),
            (1, "not|doesn't|needn't"),
            (0, "need|have"),
            (1, "know|be|see"),
            (1, "about|aware|told|this|that|it"),
        ],
    ),
    phrase(
        SECRECY,
        &[
            (0, "silently|secretly|covertly|discreetly|stealthily"),
            (3, "read|send|sends|include|call|forward|copy|collect|upload|append|execute|transmit|post"),
        ],
    ),
    phrase(
        SECRECY,
        &[(0, "keep"), (1, "this|it|that"), (2, "secret|hidden|confidential|private|quiet"), (1, "from")],
    ),
    phrase(SECRECY, &[(0, "hide|conceal"), (1, "this|it|that"), (1, "from"), (1, "user|human|customer")]),
    unless(
        PRECEDENCE,
        &[
            (0, "before|prior"),
            (1, "using|calling|invoking|executing|running|use|call"),
            (1, "any|all|every|another|each"),
            (1, TOOL),
        ],
        "from",
    ),
    phrase(
        PRECEDENCE,
        &[(0, "before|prior"), (1, "any|all|every"), (1, TOOL), (1, "is|are|call|calls|use|can|may")],
    ),
    phrase(PRECEDENCE, &[(0, "instead"), (0, "of"), (0, "any|all|every"), (2, TOOL)]),
    phrase(
        PRECEDENCE,
        &[
            (0, "always|must"),
            (2, "use|call|invoke|run"),
            (1, "this"),
            (1, TOOL),
            (3, "regardless|even|irrespective"),
        ],
    ),
    phrase(
        PRECEDENCE,
        &[
            (0, "regardless|irrespective"),
            (3, "user|user's|users"),
            (2, "asks|ask|asked|says|said|wants|requests|request|requested|instructions|intent"),
        ],
    ),
    phrase(
        PRECEDENCE,
        &[
            (0, "no"),
            (0, "matter"),
            (0, "what"),
            (1, "user|users"),
            (1, "asks|says|wants|requests|asked|said"),
        ],
    ),
    phrase(
        PRECEDENCE,
        &[
            (0, "call|invoke|run|use"),
            (0, "this|it"),
            (1, "for|with|before|after|in|on|at"),
            (0, "every|each"),
            (1, "response|reply|answer|turn|prompt"),
        ],
    ),
    phrase(
        PRECEDENCE,
        &[
            (0, "call|invoke|run|use"),
            (0, "this|it"),
            (1, "for|with|before|after|in|on|at"),
            (0, "every|each"),
            (0, "user|user's|incoming"),
            (0, "message|request|question|query"),
        ],
    ),
    unless(
        PRECEDENCE,
        &[
            (0, "when|whenever|while"),
            (2, "any|other|another"),
            (1, TOOL),
            (3, "used|called|invoked|available|present"),
        ],
        "not|no|isn't|aren't|fail|fails|failed|none",
    ),
    unless(
        CONTEXT,
        &[
            (0, HAND),
            (2, "full|entire|whole|complete|previous|all"),
            (2, "conversation|chat|dialogue"),
            (
                1,
                "history|transcript|log|logs|context|messages|contents|content|so|verbatim|above|between|with",
            ),
        ],
        "optionally",
    ),
    phrase(
        CONTEXT,
        &[
            (0, HAND),
            (3, "previous|prior|earlier|other|all|every|last"),
            (1, "tool|tools|tools'|tool's|function"),
            (1, "output|outputs|result|results|response|responses|calls"),
        ],
    ),
    phrase(
        CONTEXT,
        &[
            (0, HAND),
            (1, "your|full|entire|complete|current"),
            (1, "system|developer"),
            (0, "prompt|message|instructions"),
        ],
    ),
    // That of another is an argument as any.
    unless(
        CONTEXT,
        &[(0, HAND), (0, "the|any"), (0, "system|developer"), (0, "prompt|message|instructions")],
        "of|for|that|which|to|when|here|default",
    ),
    phrase(
        CONTEXT,
        &[
            (0, "pass|include|put|provide|insert|append|send"),
            (3, "list"),
            (3, "all|available|other"),
            (1, "tools"),
        ],
    ),
    phrase(
        CONTEXT,
        &[(0, HAND), (3, "everything"), (3, "user|conversation"), (3, "said|asked|told|typed|wrote|far")],
    ),
    phrase(CONTEXT, &[(0, HAND), (2, "chain|your"), (0, "of|internal"), (0, "thought|reasoning")]),
    unless(
        EXFILTRATION,
        &[
            (0, "upload|forward|exfiltrate|leak|collect|harvest|steal|append|smuggle"),
            (4, "api|access|private|secret|ssh|user's|stored|saved|session"),
            (1, "key|keys|token|tokens|password|passwords|credentials|cookies|secrets"),
        ],
        "public|deploy|signing",
    ),
    phrase(
        EXFILTRATION,
        &[
            (0, "send|upload|exfiltrate|leak|dump|collect|forward|append"),
            (4, "environment|env"),
            (0, "variables|vars|variable"),
        ],
    ),
];
