//! What was said so far.
//!
//! Invariant: after the system text, questions and answers alternate and an answer is last. A question whose answer was
//! lost is kept aside, to be asked again: many chat templates refuse two messages of one side in a row.

use hearth_protocol::{Message, Role};

#[derive(Debug, Default)]
pub(super) struct Conversation {
    system: Option<String>,
    turns: Vec<Turn>,
    lost: Option<String>,
}

#[derive(Debug)]
struct Turn {
    question: Message,
    answer: Message,
}

impl Conversation {
    pub(super) fn new(system: Option<String>) -> Self {
        Self { system, turns: Vec::new(), lost: None }
    }

    pub(super) fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// `None` takes it away.
    pub(super) fn set_system(&mut self, text: Option<String>) {
        self.system = text;
    }

    /// The system text stays.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.lost = None;
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::text(Role::System, text));
        let turns = self.turns.iter().flat_map(|turn| [turn.question.clone(), turn.answer.clone()]);
        system.chain(turns).collect()
    }

    /// What to send: everything, and one question more.
    pub(super) fn with_question(&self, question: &str) -> Vec<Message> {
        let mut messages = self.messages();
        messages.push(Message::text(Role::User, question));
        messages
    }

    pub(super) fn add(&mut self, question: String, answer: Message) {
        self.lost = None;
        self.turns.push(Turn { question: Message::text(Role::User, question), answer });
    }

    /// An answer of which only the text is known, because it was stopped.
    pub(super) fn add_text(&mut self, question: String, answer: String) {
        self.add(question, Message::text(Role::Assistant, answer));
    }

    /// A question that got no answer worth keeping.
    pub(super) fn lose(&mut self, question: String) {
        self.lost = Some(question);
    }

    /// The question asked last, for asking again; its answer is forgotten.
    pub(super) fn take_last(&mut self) -> Option<String> {
        self.lost.take().or_else(|| self.turns.pop().map(|turn| turn.question.content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(conversation: &Conversation) -> Vec<(Role, String)> {
        conversation.messages().into_iter().map(|one| (one.role, one.content)).collect()
    }

    #[test]
    fn turns_are_added_taken_back_and_cleared() {
        let mut conversation = Conversation::new(Some("be brief".into()));
        conversation.add("one?".into(), Message::text(Role::Assistant, "1"));
        conversation.add_text("two?".into(), "2, or".into());
        assert_eq!(
            sides(&conversation),
            [
                (Role::System, "be brief".into()),
                (Role::User, "one?".into()),
                (Role::Assistant, "1".into()),
                (Role::User, "two?".into()),
                (Role::Assistant, "2, or".into()),
            ]
        );
        assert_eq!(conversation.with_question("three?").len(), 6);
        assert_eq!(conversation.take_last().as_deref(), Some("two?"));
        conversation.clear();
        assert_eq!(sides(&conversation), [(Role::System, "be brief".into())]);
        assert_eq!(conversation.take_last(), None);
        conversation.set_system(None);
        assert!(conversation.messages().is_empty());
    }

    #[test]
    fn a_lost_question_is_asked_again_before_an_answered_one() {
        let mut conversation = Conversation::new(None);
        conversation.add_text("one?".into(), "1".into());
        conversation.lose("two?".into());
        assert_eq!(conversation.messages().len(), 2);
        assert_eq!(conversation.take_last().as_deref(), Some("two?"));
        conversation.lose("two?".into());
        conversation.add_text("two?".into(), "2".into());
        assert_eq!(conversation.take_last().as_deref(), Some("two?"));
        assert_eq!(conversation.take_last().as_deref(), Some("one?"));
        conversation.lose("three?".into());
        conversation.clear();
        assert_eq!(conversation.take_last(), None);
    }
}
