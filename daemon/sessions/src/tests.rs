//! Sessions against a plain model of them, and files that are not as they should be.

use crate::{NewSession, Response, SessionError, Sessions, Turn};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

const OWNERS: [u32; 2] = [1000, 1001];
const FOR_EVER: i64 = i64::MAX;

fn open(dir: &Path) -> Arc<Sessions> {
    Arc::new(Sessions::new(dir.join("state/state.db")))
}

fn new<'a>(id: &'a str, name: Option<&'a str>) -> NewSession<'a> {
    NewSession { id, name, model: "m", system: None, options: "{}" }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).into()).collect()
}

impl Sessions {
    fn count(&self, sql: &str) -> i64 {
        self.with(|tx, _| Ok(tx.query_row(sql, [], |row| row.get(0))?)).unwrap()
    }

    fn verify_invariants(&self) {
        let whole: String = self
            .with(|tx, _| Ok(tx.query_row("PRAGMA integrity_check", [], |row| row.get(0))?))
            .unwrap();
        assert_eq!(whole, "ok");
        assert_eq!(self.count("SELECT count(*) FROM pragma_foreign_key_check"), 0);
        let wrong_depths =
            "SELECT count(*) FROM message LEFT JOIN message AS above ON above.id = message.parent
            WHERE message.depth <> coalesce(above.depth, 0) + 1";
        assert_eq!(self.count(wrong_depths), 0);
        let needed_by_nothing = "SELECT count(*) FROM message WHERE
            NOT EXISTS (SELECT 1 FROM message AS below WHERE below.parent = message.id)
            AND NOT EXISTS (SELECT 1 FROM session WHERE head = message.id)
            AND NOT EXISTS (SELECT 1 FROM response WHERE head = message.id)";
        assert_eq!(self.count(needed_by_nothing), 0);
    }
}

/// Numbers choose among what there is, modulo how much there is.
#[derive(Debug, Clone)]
enum Op {
    Create { owner: usize, name: Option<u8> },
    Rename { owner: usize, session: usize, name: u8 },
    Turn { owner: usize, session: usize, n: usize, is_kept: bool },
    Delete { owner: usize, session: usize },
    Respond { owner: usize, to: Option<usize>, n: usize },
    RespondInSession { owner: usize, session: usize, n: usize },
    DeleteResponse { owner: usize, response: usize },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let owner = 0..OWNERS.len();
    let (name, n) = (0_u8..4, 1..4_usize);
    prop_oneof![
        (owner.clone(), proptest::option::of(name.clone()))
            .prop_map(|(owner, name)| Op::Create { owner, name }),
        (owner.clone(), any::<usize>(), name).prop_map(|(owner, session, name)| Op::Rename {
            owner,
            session,
            name
        }),
        (owner.clone(), any::<usize>(), n.clone(), any::<bool>())
            .prop_map(|(owner, session, n, is_kept)| Op::Turn { owner, session, n, is_kept }),
        (owner.clone(), any::<usize>()).prop_map(|(owner, session)| Op::Delete { owner, session }),
        (owner.clone(), proptest::option::of(any::<usize>()), 0..4_usize)
            .prop_map(|(owner, to, n)| Op::Respond { owner, to, n }),
        (owner.clone(), any::<usize>(), n).prop_map(|(owner, session, n)| Op::RespondInSession {
            owner,
            session,
            n
        }),
        (owner, any::<usize>())
            .prop_map(|(owner, response)| Op::DeleteResponse { owner, response }),
        Just(Op::Reopen),
    ]
}

#[derive(Debug, Default)]
struct Model {
    /// Owner, name, and what was said, by id.
    sessions: BTreeMap<String, (u32, Option<String>, Vec<String>)>,
    responses: BTreeMap<String, (u32, Vec<String>)>,
    n: usize,
}

impl Model {
    fn fresh(&mut self) -> usize {
        self.n += 1;
        self.n
    }

    fn say(&mut self, n: usize) -> Vec<String> {
        (0..n).map(|_| format!("said {}", self.fresh())).collect()
    }

    fn has_name(&self, owner: u32, name: &str) -> bool {
        self.sessions
            .values()
            .any(|(whose, named, _)| *whose == owner && named.as_deref() == Some(name))
    }

    /// One of any owner's.
    fn session(&self, at: usize) -> Option<String> {
        self.sessions.keys().nth(at % self.sessions.len().max(1)).cloned()
    }

    fn response(&self, at: usize) -> Option<String> {
        self.responses.keys().nth(at % self.responses.len().max(1)).cloned()
    }

    fn owns(&self, owner: u32, session: &str) -> bool {
        self.sessions[session].0 == owner
    }
}

fn not_found<T: std::fmt::Debug>(result: &Result<T, SessionError>) -> bool {
    matches!(result, Err(SessionError::NotFound { .. }))
}

fn apply(sessions: &mut Arc<Sessions>, dir: &Path, model: &mut Model, op: &Op) {
    match *op {
        Op::Create { owner, name } => {
            let (owner, id) = (OWNERS[owner], format!("sess_{:04}", model.fresh()));
            let name = name.map(|name| format!("name {name}"));
            let result = sessions.create(owner, &new(&id, name.as_deref()));
            if name.as_ref().is_some_and(|name| model.has_name(owner, name)) {
                assert!(matches!(result, Err(SessionError::NameTaken(_))), "{result:?}");
            } else {
                assert_eq!(result.unwrap().n_messages, 0);
                model.sessions.insert(id, (owner, name, Vec::new()));
            }
        }
        Op::Rename { owner, session, name } => {
            let (owner, name) = (OWNERS[owner], format!("name {name}"));
            let Some(id) = model.session(session) else { return };
            let result = sessions.rename(owner, &id, &name);
            let is_its_own = model.sessions[&id].1.as_deref() == Some(&name);
            if !model.owns(owner, &id) {
                assert!(not_found(&result), "{result:?}");
            } else if model.has_name(owner, &name) && !is_its_own {
                assert!(matches!(result, Err(SessionError::NameTaken(_))), "{result:?}");
            } else {
                assert_eq!(result.unwrap().name.as_deref(), Some(name.as_str()));
                model.sessions.get_mut(&id).unwrap().1 = Some(name);
            }
        }
        Op::Turn { owner, session, n, is_kept } => {
            let Some(id) = model.session(session) else { return };
            let Some(turn) = begin(sessions, model, OWNERS[owner], &id) else { return };
            let said = model.say(n);
            if is_kept {
                turn.keep("other", &said).unwrap();
                model.sessions.get_mut(&id).unwrap().2.extend(said);
            }
        }
        Op::Delete { owner, session } => {
            let Some(id) = model.session(session) else { return };
            let result = sessions.delete(OWNERS[owner], &id);
            if model.owns(OWNERS[owner], &id) {
                result.unwrap();
                model.sessions.remove(&id);
            } else {
                assert!(not_found(&result), "{result:?}");
            }
        }
        Op::Respond { owner, to, n } => {
            let owner = OWNERS[owner];
            let before = to.and_then(|to| model.response(to)).map(|id| {
                (
                    sessions.response(model.responses[&id].0, &id).unwrap(),
                    model.responses[&id].1.clone(),
                )
            });
            let (parent, mut all) =
                before.map_or((None, Vec::new()), |(saved, said)| (saved.head, said));
            let (id, said) = (format!("resp_{:04}", model.fresh()), model.say(n));
            let running = Response { id: &id, parent, said: &[], body: "", input: "i" };
            sessions.save(owner, &running, None, FOR_EVER).unwrap();
            sessions
                .save(owner, &Response { said: &said, body: &id, ..running }, None, FOR_EVER)
                .unwrap();
            all.extend(said);
            // One in which nothing was said has no head.
            model.responses.insert(id, (owner, if n == 0 { Vec::new() } else { all }));
        }
        Op::RespondInSession { owner, session, n } => {
            let owner = OWNERS[owner];
            let Some(session) = model.session(session) else { return };
            let Some(turn) = begin(sessions, model, owner, &session) else { return };
            let (id, said) = (format!("resp_{:04}", model.fresh()), model.say(n));
            let parent = turn.session.head;
            let response = Response { id: &id, parent, said: &said, body: &id, input: "i" };
            sessions.save(owner, &response, Some((&turn, "m")), FOR_EVER).unwrap();
            let all = &mut model.sessions.get_mut(&session).unwrap().2;
            all.extend(said);
            model.responses.insert(id, (owner, all.clone()));
        }
        Op::DeleteResponse { owner, response } => {
            let Some(id) = model.response(response) else { return };
            let result = sessions.delete_response(OWNERS[owner], &id);
            if model.responses[&id].0 == OWNERS[owner] {
                result.unwrap();
                model.responses.remove(&id);
            } else {
                assert!(not_found(&result), "{result:?}");
            }
        }
        Op::Reopen => *sessions = open(dir),
    }
}

/// A turn, while which there is no other and no deletion.
fn begin(sessions: &Arc<Sessions>, model: &Model, owner: u32, id: &str) -> Option<Turn> {
    let result = sessions.begin(owner, id);
    if !model.owns(owner, id) {
        assert!(not_found(&result), "{result:?}");
        return None;
    }
    let turn = result.unwrap();
    assert_eq!(turn.said, model.sessions[id].2);
    assert!(matches!(sessions.begin(owner, id), Err(SessionError::Busy(_))));
    assert!(matches!(sessions.delete(owner, id), Err(SessionError::Busy(_))));
    Some(turn)
}

fn compare(sessions: &Sessions, model: &Model) {
    for owner in OWNERS {
        let mut listed: Vec<_> =
            sessions.list(owner).unwrap().into_iter().map(|one| (one.id, one.name)).collect();
        listed.sort();
        let of_owner = model.sessions.iter().filter(|(_, (whose, ..))| *whose == owner);
        let expected: Vec<_> =
            of_owner.map(|(id, (_, name, _))| (id.clone(), name.clone())).collect();
        assert_eq!(listed, expected);
    }
    for (id, (owner, name, said)) in &model.sessions {
        for key in [Some(id), name.as_ref()].into_iter().flatten() {
            let (session, found) = sessions.show(*owner, key).unwrap();
            assert_eq!((&session.id, &found), (id, said));
            assert_eq!(session.n_messages as usize, said.len());
        }
    }
    for (id, (owner, said)) in &model.responses {
        let saved = sessions.response(*owner, id).unwrap();
        assert_eq!(&saved.body, id);
        assert_eq!(&sessions.messages(saved.head).unwrap(), said);
        let other = OWNERS.into_iter().find(|other| other != owner).unwrap();
        assert!(not_found(&sessions.response(other, id)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_it_is_what_a_simple_model_is(ops in proptest::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut sessions, mut model) = (open(dir.path()), Model::default());
        for op in &ops {
            apply(&mut sessions, dir.path(), &mut model, op);
            sessions.verify_invariants();
            compare(&sessions, &model);
        }
        for (id, (owner, ..)) in &model.sessions {
            sessions.delete(*owner, id).unwrap();
        }
        for (id, (owner, _)) in &model.responses {
            sessions.delete_response(*owner, id).unwrap();
        }
        prop_assert_eq!(sessions.count("SELECT count(*) FROM message"), 0);
    }
}

#[test]
fn the_file_is_its_owners_alone_and_made_when_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path());
    assert!(!dir.path().join("state").exists());
    assert!(sessions.list(1).unwrap().is_empty());
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let mode = fs::metadata(dir.path().join("state").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_is_not_ours_is_an_error_until_it_is_moved_away() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path());
    let path = dir.path().join("state/state.db");
    fs::create_dir(dir.path().join("state")).unwrap();
    fs::write(&path, "not a database, but long enough to have a header of its own".repeat(20))
        .unwrap();
    let error = sessions.create(1, &new("sess_1", None)).unwrap_err();
    assert!(matches!(error, SessionError::Corrupt { .. }), "{error}");
    assert!(error.hint().contains("move it away"), "{}", error.hint());
    fs::remove_file(&path).unwrap();
    sessions.create(1, &new("sess_1", None)).unwrap();
}

#[test]
fn a_damaged_page_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let long = vec!["word ".repeat(5000); 20];
    {
        let sessions = open(dir.path());
        sessions.create(1, &new("sess_1", Some("one"))).unwrap();
        sessions.begin(1, "one").unwrap().keep("m", &long).unwrap();
    }
    let path = dir.path().join("state/state.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let sessions = open(dir.path());
    let error = sessions.show(1, "one").unwrap_err();
    assert!(matches!(error, SessionError::Corrupt { .. }), "{error}");
}

#[test]
fn a_later_version_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path());
    sessions.create(1, &new("sess_1", None)).unwrap();
    let later = |version: i64| {
        sessions.with(|tx, _| Ok(tx.pragma_update(None, "user_version", version)?)).unwrap();
    };
    later(7);
    let error = open(dir.path()).list(1).unwrap_err();
    assert!(matches!(error, SessionError::Newer { found: 7, known: 1, .. }), "{error}");
    later(1);
    assert_eq!(open(dir.path()).list(1).unwrap().len(), 1);
}

#[test]
fn a_full_disk_costs_one_turn() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path());
    sessions.create(1, &new("sess_1", Some("one"))).unwrap();
    sessions.begin(1, "one").unwrap().keep("m", &texts(&["hi", "hello"])).unwrap();
    let pages = sessions.count("PRAGMA page_count");
    sessions.with(|tx, _| Ok(tx.pragma_update(None, "max_page_count", pages)?)).unwrap();
    let long = vec!["word ".repeat(5000)];
    let error = sessions.begin(1, "one").unwrap().keep("m", &long).unwrap_err();
    assert!(matches!(error, SessionError::Full { .. }), "{error}");
    assert_eq!(sessions.show(1, "one").unwrap().1, ["hi", "hello"]);
    // There is space again: the limit was the connection's, and after an error the file is opened anew.
    sessions.begin(1, "one").unwrap().keep("m", &long).unwrap();
    assert_eq!(sessions.show(1, "one").unwrap().0.n_messages, 3);
}

#[test]
fn a_name_is_no_id() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path());
    for name in ["", "sess_1", "a\nb", &"x".repeat(129)] {
        let result = sessions.create(1, &new("sess_1", Some(name)));
        assert!(matches!(result, Err(SessionError::BadName(_))), "{name:?}");
    }
    sessions.create(1, &new("sess_1", Some("Käse & Brot"))).unwrap();
    assert!(matches!(sessions.rename(1, "sess_1", "sess_2"), Err(SessionError::BadName(_))));
}

#[test]
fn too_old_responses_are_forgotten_as_others_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path());
    let said = texts(&["q", "a"]);
    let save = |id: &str, keep_s| {
        let response = Response { id, parent: None, said: &said, body: "", input: "" };
        sessions.save(1, &response, None, keep_s).unwrap();
    };
    for n in 0..20 {
        save(&format!("resp_{n}"), FOR_EVER);
    }
    // All of them are older than a time to come.
    for left in [13, 5, 0] {
        save("resp_last", -60);
        sessions.verify_invariants();
        assert_eq!(sessions.count("SELECT count(*) FROM response"), left);
    }
}

#[test]
fn what_is_deleted_is_not_in_the_file_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path());
    sessions.create(1, &new("sess_1", Some("one"))).unwrap();
    sessions.begin(1, "one").unwrap().keep("m", &texts(&["xyzzy-plugh"])).unwrap();
    sessions.delete(1, "one").unwrap();
    // Closing writes back and removes the journal.
    drop(sessions);
    let bytes = fs::read(dir.path().join("state/state.db")).unwrap();
    assert!(!bytes.windows(11).any(|part| part == b"xyzzy-plugh"));
}
