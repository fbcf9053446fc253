//! What a text of SQL does, by a parser of SQL.
//!
//! Always holds: the text is read in several dialects, and what it does in any of them it may do; a statement within
//! another (a `DELETE` in a `WITH`, what `EXPLAIN ANALYZE` runs) counts as its own. What none of them can read, or what
//! has more than [`TOKENS_MAX`] tokens, is of the kind `unknown`, which no policy that names kinds allows by mistake.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{self, Expr, ObjectName, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::{Dialect, GenericDialect, MsSqlDialect, MySqlDialect, PostgreSqlDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

/// Most tokens that are parsed. A chain of operators is as deep as it is long, and what is deep is left by recursion:
/// this many fit the stack of a thread several times over.
pub const TOKENS_MAX: usize = 1_000;
/// Longest text in bytes that is parsed.
pub const BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of expressions that a parser follows.
const NESTING_MAX: usize = 24;
/// Tables and functions that are told of one text; one with more is of the kind `unknown` besides.
pub const NAMES_MAX: usize = 64;

/// What a text of SQL does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sql {
    /// Kinds of its statements, sorted: `select`, `insert`, `update`, `delete`, `merge`, `create`, `alter`, `drop`,
    /// `truncate`, `grant`, `copy`, `call`, `set`, `show`, `explain`, `transaction`, `other`, `unknown`.
    pub kinds: BTreeSet<&'static str>,
    /// Tables that it names, as it names them, in lower case and without quotes.
    pub tables: BTreeSet<String>,
    /// Functions that it calls, in the same form.
    pub functions: BTreeSet<String>,
    /// Statements, of the reading that has most.
    pub statements: usize,
}

/// Reads a text of SQL.
pub fn read(text: &str) -> Sql {
    let mut sql = Sql::default();
    if text.len() > BYTES_MAX {
        sql.kinds.insert(UNKNOWN);
        return sql;
    }
    let dialects: [&dyn Dialect; 4] =
        [&GenericDialect {}, &PostgreSqlDialect {}, &MySqlDialect {}, &MsSqlDialect {}];
    for dialect in dialects {
        match statements(text, dialect) {
            Parsed::Statements(statements) => {
                sql.statements = sql.statements.max(statements.len());
                let mut reader = Reader { sql: &mut sql };
                for statement in &statements {
                    // The visitor never breaks off.
                    let _ = statement.visit(&mut reader);
                }
            }
            Parsed::TooLong => {
                sql.kinds.insert(UNKNOWN);
                return sql;
            }
            // Another dialect may have it.
            Parsed::Failed => {}
        }
    }
    // A comment to others is a command to MySQL.
    if sql.kinds.is_empty() || text.contains("/*!") || text.contains("/*M!") {
        sql.kinds.insert(UNKNOWN);
    }
    sql
}

const UNKNOWN: &str = "unknown";

enum Parsed {
    Statements(Vec<Statement>),
    TooLong,
    Failed,
}

fn statements(text: &str, dialect: &dyn Dialect) -> Parsed {
    let Ok(tokens) = Tokenizer::new(dialect, text).tokenize() else { return Parsed::Failed };
    let is_token = |token: &&Token| {
        !matches!(token, Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab))
    };
    if tokens.iter().filter(is_token).count() > TOKENS_MAX {
        return Parsed::TooLong;
    }
    let parser = Parser::new(dialect).with_recursion_limit(NESTING_MAX).with_tokens(tokens);
    let mut parser = parser;
    parser.parse_statements().map_or(Parsed::Failed, Parsed::Statements)
}

struct Reader<'s> {
    sql: &'s mut Sql,
}

impl Reader<'_> {
    fn name(names: &mut BTreeSet<String>, kinds: &mut BTreeSet<&'static str>, name: &ObjectName) {
        if names.len() >= NAMES_MAX {
            kinds.insert(UNKNOWN);
            return;
        }
        let part = |part: &ast::ObjectNamePart| match part.as_ident() {
            Some(ident) => ident.value.to_lowercase(),
            None => part.to_string().to_lowercase(),
        };
        names.insert(name.0.iter().map(part).collect::<Vec<_>>().join("."));
    }
}

impl Visitor for Reader<'_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        self.sql.kinds.insert(kind(statement));
        // The parser takes these for names of anything.
        if let Statement::Drop { names, .. } = statement {
            names.iter().for_each(|name| Reader::name(&mut self.sql.tables, &mut self.sql.kinds, name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        // `SELECT ... INTO t` makes a table.
        if let SetExpr::Select(select) = query.body.as_ref()
            && select.into.is_some()
        {
            self.sql.kinds.insert("create");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        Reader::name(&mut self.sql.tables, &mut self.sql.kinds, relation);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expression {
            Reader::name(&mut self.sql.functions, &mut self.sql.kinds, &function.name);
        }
        ControlFlow::Continue(())
    }
}

/// The word for a statement. What has no word of its own is `other`: a parser has some hundred of them, and grows.
fn kind(statement: &Statement) -> &'static str {
    // Their first words are what they are known by, and what the parser writes them as.
    let text = statement_word(statement);
    match text.as_str() {
        "SELECT" | "WITH" | "VALUES" | "(" | "TABLE" => "select",
        "INSERT" | "REPLACE" => "insert",
        "UPDATE" => "update",
        "DELETE" => "delete",
        "MERGE" => "merge",
        "CREATE" => "create",
        "ALTER" | "RENAME" => "alter",
        "DROP" => "drop",
        "TRUNCATE" => "truncate",
        "GRANT" | "REVOKE" | "DENY" => "grant",
        "COPY" | "LOAD" | "UNLOAD" => "copy",
        "CALL" | "EXEC" | "EXECUTE" => "call",
        "SET" | "RESET" | "USE" => "set",
        "SHOW" => "show",
        "EXPLAIN" | "DESCRIBE" | "DESC" => "explain",
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => "transaction",
        _ => "other",
    }
}

fn statement_word(statement: &Statement) -> String {
    match statement {
        // By their kind, not by how they begin: a `WITH` may stand before any of them.
        Statement::Query(_) => "SELECT".to_owned(),
        Statement::Insert(_) => "INSERT".to_owned(),
        Statement::Update { .. } => "UPDATE".to_owned(),
        Statement::Delete(_) => "DELETE".to_owned(),
        other => {
            let text = other.to_string();
            let end = text.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(text.len());
            text.get(..end).unwrap_or_default().to_ascii_uppercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<&'static str> {
        read(text).kinds.into_iter().collect()
    }

    #[test]
    fn a_statement_is_told_by_what_it_does_in_any_dialect() {
        for (text, expected) in [
            ("SELECT a FROM t WHERE b = 'c; d'", vec!["select"]),
            ("select 1; drop table t", vec!["drop", "select"]),
            ("INSERT INTO t VALUES (1)", vec!["insert"]),
            ("REPLACE INTO t VALUES (1)", vec!["insert"]),
            ("UPDATE t SET a = 1", vec!["update"]),
            ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", vec!["delete", "select"]),
            ("EXPLAIN ANALYZE DELETE FROM t", vec!["delete", "explain"]),
            ("SELECT * INTO u FROM t", vec!["create", "select"]),
            ("CREATE TABLE u AS SELECT 1", vec!["create"]),
            ("GRANT ALL ON t TO u", vec!["grant"]),
            ("TRUNCATE TABLE t", vec!["truncate"]),
            ("COPY t FROM '/etc/passwd'", vec!["copy"]),
            ("CALL f()", vec!["call"]),
            ("SET a = 1", vec!["set"]),
            ("BEGIN", vec!["transaction"]),
            ("SELECT '\\'; DROP TABLE t; -- '", vec!["drop", "select"]),
            ("SELECT 1 /*! INTO OUTFILE 'x' */", vec!["select", UNKNOWN]),
            ("not sql at all", vec![UNKNOWN]),
            ("", vec![UNKNOWN]),
        ] {
            assert_eq!(kinds(text), expected, "{text}");
        }
    }

    #[test]
    fn tables_and_functions_are_told_as_they_are_named() {
        let sql = read(
            "SELECT COUNT(*), pg_read_file('x') FROM Public.\"Users\" u JOIN orders o ON (SELECT 1 FROM logs)",
        );
        let expected = Sql {
            kinds: ["select"].into(),
            tables: ["public.users", "orders", "logs"].map(str::to_owned).into(),
            functions: ["count", "pg_read_file"].map(str::to_owned).into(),
            statements: 1,
        };
        assert_eq!(sql, expected);
        assert_eq!(read("DELETE FROM t; SELECT 1").tables, ["t".to_owned()].into());
    }

    #[test]
    fn what_is_long_or_deep_is_unknown_and_leaves_the_stack_alone() {
        let many = TOKENS_MAX * 2;
        for (text, expected) in [
            (format!("SELECT 1{}", " + 1".repeat(TOKENS_MAX / 2 - 2)), vec!["select"]),
            (format!("SELECT 1{}", " OR 1".repeat(TOKENS_MAX / 2 - 2)), vec!["select"]),
            (format!("SELECT 1{}", " UNION SELECT 1".repeat(TOKENS_MAX / 3 - 2)), vec!["select"]),
            (format!("SELECT a{}", "::int".repeat(TOKENS_MAX / 2 - 2)), vec!["select"]),
            (format!("SELECT 1{}", " + 1".repeat(many)), vec![UNKNOWN]),
            (format!("SELECT {}1{}", "(".repeat(400), ")".repeat(400)), vec![UNKNOWN]),
            (format!("SELECT {}1", "- ".repeat(900)), vec![UNKNOWN]),
            (format!("SELECT {}1", "NOT ".repeat(900)), vec![UNKNOWN]),
            ("x".repeat(BYTES_MAX + 1), vec![UNKNOWN]),
        ] {
            let begin: String = text.chars().take(40).collect();
            // As the threads that serve requests have it.
            let read = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || kinds(&text));
            assert_eq!(read.expect("a thread").join().expect("it ends"), expected, "{begin}");
        }
    }

    #[test]
    fn a_text_with_more_tables_than_are_told_is_unknown_besides() {
        let tables: Vec<_> = (0..NAMES_MAX + 1).map(|index| format!("t{index}")).collect();
        assert_eq!(kinds(&format!("SELECT 1 FROM {}", tables.join(", "))), ["select", UNKNOWN]);
    }
}
