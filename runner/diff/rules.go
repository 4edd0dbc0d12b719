package diff

import "runbook/schema"

// Rule is one verdict about a difference. What it is worth depends on what the step is that
// has it: one that cuts over or destroys, one that writes, one that checks, one that only
// looks. A group is worth the worst of what stands in it.
type Rule struct {
	Name   string
	Levels [4]Level // where the step cuts over or destroys, writes, checks, looks
	Reason string   // why that matters, in a sentence without a full stop
}

// of says that a rule is worth the same everywhere.
func of(l Level) [4]Level { return [4]Level{l, l, l, l} }

// Rules are all verdicts, the most severe first: this is also their order in a report where
// the level is the same. docs/review.md is held against it by a test.
func Rules() []Rule {
	return []Rule{
		{"step-added", [4]Level{Danger, Caution, Notice, Notice}, "it was not there before"},
		{"effect-rose", of(Danger), "it does more to the world than before"},
		{"effect-fell", of(Danger), "it is taken for less than before: what asks, journals and dry runs believe it"},
		{"other-kind", [4]Level{Danger, Danger, Danger, Caution}, "it does something else under the same id"},
		{"target-kind", of(Danger), "every step that names it acts on another kind of system"},
		{"target-address", of(Danger), "every step that names it acts on another system"},
		{"other-target", [4]Level{Danger, Danger, Danger, Caution}, "it acts on another system"},
		{"more-targets", [4]Level{Danger, Danger, Notice, Notice}, "it acts on more systems"},
		{"more-slots", [4]Level{Danger, Danger, Notice, Notice}, "more slots are at stake"},
		{"other-slots", [4]Level{Danger, Danger, Danger, Caution}, "other slots are at stake"},
		{"more-items", [4]Level{Danger, Danger, Notice, Notice}, "it is done for more items"},
		{"other-items", [4]Level{Danger, Danger, Danger, Caution}, "it is done for other items"},
		{"act-before-check", of(Danger), "it acts before what used to be verified first"},
		{"check-before-act", of(Danger), "what it did is no longer verified afterwards"},
		{"moved-aside", [4]Level{Danger, Caution, Danger, Notice}, "it no longer runs on the way that every run takes, or runs there now"},
		{"check-removed", of(Danger), "nothing verifies this any more"},
		{"step-removed", [4]Level{Danger, Caution, Danger, Notice}, "it is not done any more"},
		{"confirmation-removed", of(Danger), "no person is asked any more"},
		{"confirmation-waived", of(Danger), "the question that a destructive step asks by itself is waived"},
		{"fewer-approvals", of(Danger), "fewer people must agree"},
		{"asked-less", of(Danger), "one answer counts for more"},
		{"retype-removed", of(Danger), "a yes is enough, nothing must be typed"},
		{"removed-condition", of(Danger), "nothing asks for this any more"},
		{"weakened-condition", of(Danger), "it holds where it did not before"},
		{"changed-condition", of(Danger), "it cannot be shown to ask for as much as before"},
		{"runs-more", [4]Level{Danger, Caution, Notice, Notice}, "it runs where it was skipped"},
		{"runs-less", [4]Level{Caution, Caution, Danger, Notice}, "it is skipped where it ran"},
		{"other-when", [4]Level{Danger, Caution, Danger, Notice}, "it runs in other cases than before"},
		{"shorter-stable", of(Danger), "a moment counts where it had to last"},
		{"window-split", of(Danger), "the items no longer have to hold at the same time"},
		{"longer-pause", of(Danger), "clients may have to wait for longer"},
		{"undo-removed", [4]Level{Danger, Danger, Notice, Notice}, "a rollback no longer puts it back"},
		{"no-return-added", of(Danger), "nothing before it is rolled back once it has started"},
		{"restore-removed", of(Danger), "a temporary setting stays after the run"},
		{"finally-removed", of(Danger), "it is not done at the end of every run any more"},
		{"failure-ignored", of(Danger), "the run goes on when it fails"},
		{"rescue-added", of(Danger), "the run goes on when it fails, if these steps succeed"},
		{"more-failures", of(Danger), "more items may fail before the loop stops"},
		{"recheck-removed", of(Danger), "a resume believes what was seen before it"},
		{"probe-weakened", of(Danger), "a resume may take it for done when it is not"},
		{"probe-removed", of(Danger), "nobody can tell after a crash whether it was done"},
		{"idempotent-claimed", of(Danger), "it is done once more where nobody knows whether it was done"},
		{"forced", of(Danger), "it goes on where it would refuse"},
		{"more-parallel", [4]Level{Danger, Caution, Notice, Notice}, "more is done at the same time"},
		{"larger-batch", [4]Level{Danger, Caution, Notice, Notice}, "more is done before anybody looks"},
		{"guard-removed", of(Danger), "nothing stops the run for this any more"},
		{"guard-weakened", of(Danger), "it trips later, or for less"},
		{"deadline-removed", of(Danger), "it may take any time"},
		{"window-removed", of(Danger), "it may start at any time"},
		{"policy-removed", of(Danger), "plans are no longer refused for this"},
		{"policy-weakened", of(Danger), "fewer plans are refused"},
		{"policy-waived", of(Danger), "a built-in policy does not apply any more"},
		{"lock-removed", of(Danger), "two runs can work on the same thing"},
		{"lock-changed", of(Danger), "runs that hold the old lock do not keep this one out"},
		{"other-input", [4]Level{Danger, Caution, Danger, Notice}, "it is given something else"},

		{"target-credentials", of(Caution), "it logs in in another way"},
		{"target-config", of(Caution), "it is reached in another way"},
		{"target-facts", of(Caution), "expressions read this"},
		{"secret-source", of(Caution), "the secret is read from elsewhere"},
		{"fewer-targets", [4]Level{Caution, Caution, Danger, Notice}, "systems are left out"},
		{"fewer-slots", [4]Level{Caution, Caution, Danger, Notice}, "slots are left out"},
		{"fewer-items", [4]Level{Caution, Caution, Danger, Notice}, "items are left out"},
		{"acts-reordered", of(Caution), "what changes something happens in another order"},
		{"larger-timeout", of(Caution), "it may hang for longer before it fails"},
		{"larger-stall", of(Caution), "it waits for longer although nothing comes closer"},
		{"fewer-retries", [4]Level{Caution, Caution, Notice, Notice}, "a passing error ends it sooner"},
		{"more-retries", [4]Level{Caution, Caution, Notice, Notice}, "it is tried more often"},
		{"shorter-rest", [4]Level{Caution, Caution, Notice, Notice}, "there is less time to see what a wave did"},
		{"other-loop", [4]Level{Caution, Caution, Notice, Notice}, "its items are counted or named in another way"},
		{"retype-changed", of(Caution), "something else must be typed"},
		{"gate-detached", of(Caution), "while it waits nothing watches, and the lock is given back"},
		{"undo-changed", [4]Level{Caution, Caution, Notice, Notice}, "a rollback puts it back in another way"},
		{"no-return-removed", of(Caution), "a rollback goes past it"},
		{"rollback-dropped", of(Caution), "a failure leaves things as they are, where they were put back"},
		{"other-rollback", of(Caution), "a failure puts back something else"},
		{"rescue-removed", of(Caution), "a failure ends the run, where it was dealt with"},
		{"probe-changed", of(Caution), "a resume asks something else"},
		{"background", [4]Level{Caution, Caution, Caution, Notice}, "what follows starts at another time"},
		{"guard-changed", of(Caution), "another condition stops the run, or in another way"},
		{"deadline-later", of(Caution), "it may take longer"},
		{"deadline-changed", of(Caution), "something else happens when the time is over"},
		{"window-changed", of(Caution), "it may start at other times"},
		{"policy-changed", of(Caution), "other plans are refused or warned of"},
		{"input-wider", of(Caution), "values are taken that were refused"},
		{"input-type", of(Caution), "values are read in another way"},

		{"renamed-input", of(Notice), "who gives the input must use the new name"},
		{"input-added", of(Notice), "a new value to give"},
		{"input-removed", of(Notice), "who gives it gets an error"},
		{"input-required", of(Notice), "it has no default any more"},
		{"input-optional", of(Notice), "nobody has to think of it any more"},
		{"input-stricter", of(Notice), "values are refused that were taken"},
		{"value-changed", of(Notice), "what it stands for is another value"},
		{"output-changed", of(Notice), "who reads it sees something else"},
		{"target-added", of(Notice), "a new system"},
		{"target-removed", of(Notice), "nothing acts on it any more"},
		{"target-groups", of(Notice), "fan-outs choose by this"},
		{"secret-added", of(Notice), "a new secret is read"},
		{"secret-removed", of(Notice), "a secret is not read any more"},
		{"lock-added", of(Notice), "runs keep each other out"},
		{"policy-added", of(Notice), "more plans are refused or warned of"},
		{"guard-added", of(Notice), "more can stop the run"},
		{"guard-stricter", of(Notice), "it trips sooner, or for more"},
		{"deadline-added", of(Notice), "it may not take any time"},
		{"deadline-earlier", of(Notice), "it may not take as long"},
		{"window-added", of(Notice), "it may not start at any time"},
		{"strengthened-condition", of(Notice), "it asks for more than before"},
		{"added-condition", of(Notice), "something more must hold"},
		{"longer-stable", of(Notice), "it must last for longer"},
		{"window-joined", of(Notice), "all items must hold at the same time"},
		{"shorter-pause", of(Notice), "clients wait for less"},
		{"shorter-timeout", of(Notice), "it fails sooner"},
		{"shorter-stall", of(Notice), "it gives up sooner when nothing comes closer"},
		{"other-cadence", of(Notice), "it looks at another pace"},
		{"other-retry", of(Notice), "attempts are spaced in another way"},
		{"other-repeat", of(Notice), "passes are counted or spaced in another way"},
		{"less-parallel", of(Notice), "less is done at the same time"},
		{"smaller-batch", of(Notice), "less is done before the next look"},
		{"longer-rest", of(Notice), "there is more time between waves"},
		{"fewer-failures", of(Notice), "fewer items may fail"},
		{"confirmation-added", of(Notice), "a person is asked"},
		{"more-approvals", of(Notice), "more people must agree"},
		{"asked-more", of(Notice), "people are asked more often"},
		{"retype-added", of(Notice), "something must be typed"},
		{"gate-attached", of(Notice), "the process stays while it waits"},
		{"gate-timeout", of(Notice), "the question waits for another time"},
		{"gate-text", of(Notice), "people read something else before they agree"},
		{"undo-added", of(Notice), "a rollback puts it back"},
		{"restore-added", of(Notice), "it is put back at the end"},
		{"finally-added", [4]Level{Danger, Caution, Notice, Notice}, "it is done at the end of every run"},
		{"failure-stricter", of(Notice), "a failure has more consequences"},
		{"recheck-added", of(Notice), "a resume looks again"},
		{"probe-added", of(Notice), "a resume can ask whether it was done"},
		{"idempotent-dropped", of(Notice), "it is not repeated when nobody knows whether it was done"},
		{"unforced", of(Notice), "it refuses where it would go on"},
		{"tags", of(Notice), "--only and --skip choose other steps"},
		{"group-added", of(Notice), "steps stand together in it"},

		{"reworded-condition", of(Harmless), "it holds in the same cases"},
		{"renamed", of(Harmless), "the same under another name"},
		{"moved", of(Harmless), "the same in another place, where the order does not matter"},
		{"regrouped", of(Harmless), "a group around steps that changes nothing for them"},
	}
}

var ruleOf, rank = func() (map[string]Rule, map[string]int) {
	byName, order := map[string]Rule{}, map[string]int{}
	for i, r := range Rules() {
		byName[r.Name], order[r.Name] = r, i
	}
	return byName, order
}()

// SchemaRules are the rules as the writers of findings want them.
func SchemaRules() []schema.Rule {
	var all []schema.Rule
	for _, r := range Rules() {
		all = append(all, schema.Rule{Name: r.Name, Doc: upper(r.Reason) + "."})
	}
	return all
}

func upper(s string) string { return string(s[0]-'a'+'A') + s[1:] }
