//! What is said to models in other languages.

use super::phrases::{CONTEXT, OVERRIDE, PRECEDENCE, Phrase, SECRECY, phrase, unless};

const ES_TELL: &str = "digas|diga|menciones|mencione|informes|informe|reveles|revele";

/// Word by word, without accents.
pub(super) const PHRASES: [Phrase; 21] = [
    // German
    phrase(
        OVERRIDE,
        &[
            (0, "ignoriere|ignorieren|vergiss|missachte|missachten"),
            (3, "vorherigen|bisherigen|obigen|fruheren|vorigen|vorangegangenen"),
            (1, "anweisungen|instruktionen|befehle|regeln|vorgaben"),
        ],
    ),
    unless(
        SECRECY,
        &[
            (0, "sage|sag|erzahle|verrate|informiere|teile"),
            (2, "benutzer|nutzer|anwender"),
            (2, "nicht|nichts"),
        ],
        "wenn|falls|ob|dass|sobald|weil",
    )
    .within(3),
    phrase(
        PRECEDENCE,
        &[
            (0, "bevor|vor"),
            (4, "anderes|anderen|andere|jedem|irgendein"),
            (0, "werkzeug|werkzeuge|werkzeugen|werkzeugs|tool|tools"),
        ],
    ),
    // French
    phrase(
        OVERRIDE,
        &[
            (0, "ignore|ignorez|ignorer|oublie|oubliez"),
            (3, "instructions|consignes|directives|regles"),
            (1, "precedentes|anterieures"),
        ],
    ),
    phrase(
        SECRECY,
        &[
            (0, "ne"),
            (1, "dis|dites|mentionne|mentionnez|informe|informez|revele|revelez"),
            (1, "pas|rien|jamais"),
            (4, "utilisateur|l'utilisateur"),
        ],
    ),
    phrase(
        PRECEDENCE,
        &[
            (0, "avant"),
            (2, "utiliser|d'utiliser|appeler|d'appeler"),
            (1, "tout|n'importe|autre"),
            (2, "outil|outils"),
        ],
    ),
    // Spanish
    phrase(
        OVERRIDE,
        &[
            (0, "ignora|ignore|olvida|ignorar|desestima"),
            (3, "instrucciones|indicaciones|reglas|ordenes"),
            (1, "anteriores|previas"),
        ],
    ),
    phrase(SECRECY, &[(0, "no"), (0, ES_TELL), (4, "usuario|usuarios")]).within(2),
    phrase(SECRECY, &[(0, "no"), (0, "le|les|lo|se|nunca"), (0, ES_TELL), (4, "usuario|usuarios")]).within(3),
    phrase(
        PRECEDENCE,
        &[
            (0, "antes"),
            (0, "de"),
            (0, "usar|utilizar|llamar"),
            (2, "cualquier|otra|ninguna"),
            (1, "herramienta"),
        ],
    ),
    // Portuguese
    phrase(
        OVERRIDE,
        &[
            (0, "ignore|ignora|esqueca|desconsidere"),
            (3, "instrucoes|regras|orientacoes"),
            (1, "anteriores|previas"),
        ],
    ),
    phrase(
        SECRECY,
        &[(0, "nao"), (0, "diga|conte|mencione|informe|revele"), (4, "usuario|usuarios|utilizador")],
    )
    .within(2),
    phrase(
        SECRECY,
        &[
            (0, "nao"),
            (0, "lhe|lhes|o|a|isso|nunca"),
            (0, "diga|conte|mencione|informe|revele"),
            (4, "usuario|usuarios|utilizador"),
        ],
    )
    .within(3),
    // Italian
    phrase(
        OVERRIDE,
        &[(0, "ignora|ignorate|dimentica"), (3, "istruzioni|indicazioni|regole"), (1, "precedenti")],
    ),
    phrase(
        SECRECY,
        &[(0, "non"), (0, "dire|dirlo|menzionare|informare|rivelare"), (4, "utente|all'utente|l'utente")],
    )
    .within(2),
    // Dutch
    phrase(
        OVERRIDE,
        &[
            (0, "negeer|vergeet"),
            (3, "vorige|eerdere|bovenstaande|voorgaande"),
            (1, "instructies|opdrachten|regels"),
        ],
    ),
    unless(SECRECY, &[(0, "vertel|zeg"), (2, "gebruiker"), (2, "niet|niets")], "als|wanneer|indien|dat|of")
        .within(3),
    // Polish
    phrase(
        OVERRIDE,
        &[(0, "zignoruj|ignoruj|zapomnij"), (3, "poprzednie|wczesniejsze"), (1, "instrukcje|polecenia")],
    ),
    // Turkish
    phrase(
        OVERRIDE,
        &[
            (0, "onceki"),
            (1, "tum|butun|talimatlari|talimatlarin"),
            (1, "talimatlari|yok|yoksay|unut|gormezden"),
        ],
    ),
    // Vietnamese
    phrase(OVERRIDE, &[(0, "bo"), (0, "qua"), (3, "huong|chi"), (0, "dan|thi"), (1, "truoc")]),
    // Indonesian
    phrase(OVERRIDE, &[(0, "abaikan|lupakan"), (2, "instruksi|perintah"), (1, "sebelumnya")]),
];

/// Of scripts without spaces, and of such as this one has few words of; as they are folded.
pub(super) const WHOLE: [(&str, &str); 44] = [
    (OVERRIDE, "忽略之前的"),
    (OVERRIDE, "忽略以上"),
    (OVERRIDE, "忽略所有"),
    (OVERRIDE, "忽略先前"),
    (OVERRIDE, "无视之前"),
    (OVERRIDE, "無視之前"),
    (SECRECY, "不要告诉用户"),
    (SECRECY, "不要告訴使用者"),
    (SECRECY, "请勿告诉用户"),
    (SECRECY, "不要向用户透露"),
    (SECRECY, "不要向用户提及"),
    (PRECEDENCE, "使用任何其他工具之前"),
    (PRECEDENCE, "调用任何其他工具之前"),
    (PRECEDENCE, "調用任何其他工具之前"),
    (CONTEXT, "完整的对话历史"),
    (OVERRIDE, "以前の指示を無視"),
    (OVERRIDE, "これまでの指示を無視"),
    (OVERRIDE, "前の指示を無視"),
    (OVERRIDE, "上記の指示を無視"),
    (OVERRIDE, "すべての指示を無視"),
    (SECRECY, "ユーザーに言わない"),
    (SECRECY, "ユーザーには言わない"),
    (SECRECY, "ユーザーに知らせない"),
    (SECRECY, "ユーザーには知らせない"),
    (SECRECY, "ユーザーに伝えない"),
    (SECRECY, "ユーザーには伝えない"),
    (PRECEDENCE, "他のツールを使う前に"),
    (PRECEDENCE, "他のツールを使用する前に"),
    (OVERRIDE, "이전 지시를 무시"),
    (OVERRIDE, "이전 지침을 무시"),
    (OVERRIDE, "이전의 모든 지시"),
    (SECRECY, "사용자에게 말하지"),
    (SECRECY, "사용자에게 알리지"),
    (OVERRIDE, "игнорируй предыдущие"),
    (OVERRIDE, "игнорируй все предыдущие"),
    (OVERRIDE, "игнорируйте предыдущие"),
    (OVERRIDE, "игнорируйте все предыдущие"),
    (SECRECY, "не говори пользователю"),
    (SECRECY, "не сообщай пользователю"),
    (SECRECY, "не сообщайте пользователю"),
    (OVERRIDE, "تجاهل التعليمات السابقة"),
    (SECRECY, "لا تخبر المستخدم"),
    (OVERRIDE, "התעלם מההוראות הקודמות"),
    (OVERRIDE, "पिछले निर्देशों को अनदेखा"),
];
