package runner

import (
	"reflect"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

// Plan is what a run would do, in order, as far as it can be told without asking a
// target: what inputs and vars decide is decided, what only a run can know says so. Its
// JSON is the answer of `plan --output json`: names of fields stay. The doc tags are the
// reference text of its published JSON Schema, see PlanSchema.
type Plan struct {
	Format      int               `json:"format" doc:"Version of this form: 1. Fields may be added within it; none is renamed or taken away."`
	Name        string            `json:"name" doc:"Name of the runbook."`
	Path        string            `json:"path" doc:"File of the runbook, as it was given."`
	Description string            `json:"description,omitempty" doc:"What the runbook does, in its author's words."`
	Labels      map[string]string `json:"labels,omitempty" doc:"Labels of the runbook."`
	Digest      string            `json:"digest" doc:"SHA-256, in hex, over the sources, the inputs and the kinds used. Runs, journals and saved plans name it. A comment changes it too, so it is not in the text or the Markdown."`
	Selection   *Selection        `json:"selection,omitempty" doc:"The part of the steps that was chosen; absent: all."`
	LeftOut     int               `json:"left_out,omitempty" doc:"Steps as written that the selection leaves out."`
	Inputs      []PlanValue       `json:"inputs,omitempty" doc:"Inputs with their values, in the order of the file. Those of type secret are not among them."`
	Vars        []PlanValue       `json:"vars,omitempty" doc:"Values named once."`
	Secrets     []PlanSecret      `json:"secrets,omitempty" doc:"Secrets by name; a plan never reads one."`
	Targets     []PlanTarget      `json:"targets,omitempty" doc:"The systems acted upon or asked."`
	Lock        string            `json:"lock,omitempty" doc:"Name of the lock; absent: none."`
	LockTarget  string            `json:"lock_target,omitempty" doc:"Target that holds the lock; absent: a file in the state directory."`
	LockHold    string            `json:"lock_hold,omitempty" enum:"run" doc:"run: the claim is kept across pauses and restarts, until the run is over."`
	OnFailure   string            `json:"on_failure" enum:"stop,rollback" doc:"What a failed step does to the run."`
	Guards      []PlanGuard       `json:"guards,omitempty" doc:"Stop conditions, watched during the whole run."`
	Summary     PlanSummary       `json:"summary" doc:"What matters, counted."`
	Observed    *PlanObserved     `json:"observed,omitempty" doc:"Of a plan made with --live: when its targets were asked."`
	Policies    []PlanPolicy      `json:"policies,omitempty" doc:"What policies say of the plan; with a verdict of denied it is not run."`
	Outputs     []PlanOutput      `json:"outputs,omitempty" doc:"What a caller of the runbook sees."`
	Steps       []*PlanStep       `json:"steps" doc:"What would run, in order."`
	Finally     []*PlanStep       `json:"finally,omitempty" doc:"Steps that run at the end of every run, whatever happened."`
}

// PlanValue is a named value.
type PlanValue struct {
	Name    string `json:"name" doc:"Name of the value, or the expression that gives it."`
	Type    string `json:"type,omitempty" doc:"Type of an input, as declared."`
	Value   any    `json:"value" doc:"The value; null where it is null or not known."`
	Origin  string `json:"origin,omitempty" doc:"Where the value of an input comes from: default, inventory, file or flag."`
	Unknown string `json:"unknown,omitempty" doc:"Why there is no value yet, such as: after look."`
}

// PlanSecret is a secret's name and where it will be read from, never its value.
type PlanSecret struct {
	Name string `json:"name" doc:"Name of the secret."`
	From string `json:"from" doc:"Where a run reads it."`
}

// PlanTarget is a system acted upon.
type PlanTarget struct {
	Name    string `json:"name" doc:"Name of the target."`
	Kind    string `json:"kind,omitempty" doc:"Kind of the target."`
	Addr    string `json:"addr,omitempty" doc:"Address of the target, as its kind writes it."`
	Unknown string `json:"unknown,omitempty" doc:"Why the target cannot be told yet."`
}

// PlanSummary is the head of a plan. Counts are of single steps, each item of a loop one.
type PlanSummary struct {
	Steps    int `json:"steps" doc:"Single steps, each item of a loop one; a loop over a list known only while running counts as one item, after-batch as one batch."`
	Reads    int `json:"reads" doc:"Steps that change nothing."`
	Writes   int `json:"writes" doc:"Steps that change state; service is unaffected."`
	Cutovers int `json:"cutovers" doc:"Steps that move live traffic."`
	Destroys int `json:"destroys" doc:"Steps after which data or an instance is gone."`
	// IfFailed are those that run after a failure alone, in rescue and undo; they are in no other count.
	IfFailed         PlanCounts    `json:"if_failed" doc:"Steps that run only if something fails (rescue, and undo as written); in no other count."`
	InstancesTouched int           `json:"instances_touched" doc:"How many addresses steps that are no reads act on or send to."`
	Instances        []PlanTouched `json:"instances,omitempty" doc:"Those addresses."`
	SlotsTouched     int           `json:"slots_touched" doc:"How many slots the inputs of steps that are no reads name."`
	Slots            string        `json:"slots,omitempty" doc:"Those slots, as ranges."`
	UnknownTouched   []string      `json:"unknown_touched,omitempty" doc:"Steps that are no reads and whose target or slots only a run can know."`
	Keys             *int64        `json:"keys_at_stake" doc:"Keys in what is touched; null: not known, since no target was asked."`
	Uncounted        []string      `json:"keys_not_counted,omitempty" doc:"Of a plan made with --live: touched addresses whose keys no step counts."`
	Unknown          int           `json:"unknown_loops,omitempty" doc:"Loops whose items only a run can know."`
	UnknownLoops     []string      `json:"unknown_loop_steps,omitempty" doc:"Those loops, by path."`
	Irreversible     []string      `json:"irreversible,omitempty" doc:"Steps after which something cannot be put back, by id."`
	NoWayBack        []PlanValue   `json:"no_way_back,omitempty" doc:"The same steps, with the reason."`
	Gates            []string      `json:"gates,omitempty" doc:"Steps that wait for a person, by id."`
	Approvals        []PlanPeople  `json:"approvals,omitempty" doc:"The same steps, with who must say yes."`
	Pause            string        `json:"longest_pause,omitempty" doc:"Longest time that clients may wait at one step, as declared; absent: none is declared."`
	PauseAt          string        `json:"longest_pause_at,omitempty" doc:"Path of the first step with that pause."`
}

// PlanCounts are steps by effect.
type PlanCounts struct {
	Reads    int `json:"reads" doc:"Steps that change nothing."`
	Writes   int `json:"writes" doc:"Steps that change state."`
	Cutovers int `json:"cutovers" doc:"Steps that move live traffic."`
	Destroys int `json:"destroys" doc:"Steps after which data or an instance is gone."`
}

// PlanTouched is an address that is changed.
type PlanTouched struct {
	Addr  string   `json:"addr" doc:"The address."`
	Kind  string   `json:"kind" doc:"Kind of the target there."`
	Names []string `json:"names" doc:"The targets that are there."`
}

// PlanPeople says who must say yes to a step.
type PlanPeople struct {
	Step   string `json:"step" doc:"Id of the step."`
	People int    `json:"people" doc:"How many different people; with 2 or more the one who started the run does not count."`
	Retype bool   `json:"retype,omitempty" doc:"A text must be typed."`
	Each   string `json:"each,omitempty" enum:"batch,item" doc:"On a loop: how often they are asked; absent: once."`
}

// The shapes of a PlanStep.
const (
	ShapeStep   = "step"
	ShapeGroup  = "group"
	ShapeLoop   = "loop"
	ShapeFanOut = "fan-out"
	ShapeCall   = "runbook"
)

// What becomes of a step of which a crash leaves open whether it had its effect.
const (
	DoubtAgain  = "again"
	DoubtDecide = "decide"
)

// PlanStep is one step that would run, or one that holds others.
type PlanStep struct {
	Path        string          `json:"path" doc:"Path of the step, as journals and approvals name it; * stands for an item known only while running."`
	ID          string          `json:"id" doc:"Id of the step in its file."`
	Shape       string          `json:"shape" enum:"step,group,loop,fan-out,runbook" doc:"What it is: a step, or what holds others."`
	Name        string          `json:"name,omitempty" doc:"One line for people."`
	Why         string          `json:"why,omitempty" doc:"Why the step is there."`
	Kind        string          `json:"kind,omitempty" doc:"Step kind, or the file of a runbook used as a step."`
	Effect      string          `json:"effect" enum:"read,write,cutover,destroy" doc:"What it does to the world; of what holds others the worst inside."`
	Tags        []string        `json:"tags,omitempty" doc:"Tags for --only and --skip."`
	Targets     []PlanTarget    `json:"targets,omitempty" doc:"What it acts on, or asks."`
	Parallel    bool            `json:"parallel,omitempty" doc:"The steps in it run at the same time."`
	Skipped     string          `json:"skipped,omitempty" doc:"Why it will not run."`
	Window      *PlanWindow     `json:"window,omitempty" doc:"Outside this window it waits."`
	MaxAge      *PlanMaxAge     `json:"max_age,omitempty" doc:"How long it may take, across pauses and restarts."`
	Guards      []PlanGuard     `json:"guards,omitempty" doc:"Stop conditions while it runs."`
	Conditions  []PlanCondition `json:"conditions,omitempty" doc:"What must hold, or is waited for, in the order in which it is asked."`
	With        []PlanValue     `json:"with,omitempty" doc:"Inputs as written, evaluated as far as they are known."`
	Commands    []steps.Line    `json:"commands,omitempty" doc:"What it will send. Parts known only while running stand in parentheses."`
	Pause       string          `json:"pause,omitempty" doc:"Longest time that clients may wait at it."`
	Undo        string          `json:"undo,omitempty" doc:"How it is put back."`
	NoUndo      string          `json:"no_undo,omitempty" doc:"Why it cannot be put back."`
	Doubt       string          `json:"doubt,omitempty" enum:"again,decide" doc:"What becomes of it where a crash leaves open whether it had its effect. again: it is run again, twice is the same as once. decide: the run stops until an operator decides. Absent: its kind or its probe looks."`
	Probe       *PlanProbe      `json:"probe,omitempty" doc:"The author's read that tells whether the effect is there."`
	Confirm     *PlanGate       `json:"confirm,omitempty" doc:"The question to a person before it acts."`
	ConfirmedBy string          `json:"confirmed_by,omitempty" doc:"Of a destroying step: the step around it at which a person is asked instead."`
	Unconfirmed bool            `json:"unconfirmed,omitempty" doc:"It destroys something, and nobody is asked."`
	Outputs     []PlanOutput    `json:"outputs,omitempty" doc:"Extra values that later steps read of it; of a runbook used as a step all that its caller sees."`
	Settings    []PlanSetting   `json:"settings,omitempty" doc:"Times, counts and switches that are in force."`
	Loop        *PlanLoop       `json:"loop,omitempty" doc:"What it repeats over."`
	NoReturn    bool            `json:"point_of_no_return,omitempty" doc:"Once it has started, nothing before it is rolled back."`
	OnFailure   string          `json:"on_failure,omitempty" enum:"stop,continue,rollback,rollback-item,rollback-run" doc:"What its failure does; absent: as around it."`
	Warnings    []string        `json:"warnings,omitempty" doc:"What a reviewer should not overlook."`
	Steps       []*PlanStep     `json:"steps,omitempty" doc:"What it holds: children, items, or the steps of a runbook."`
	AfterBatch  []*PlanStep     `json:"after_batch,omitempty" doc:"Steps after each wave of a loop."`
	Rescue      []*PlanStep     `json:"rescue,omitempty" doc:"Steps that run when it failed."`
	UndoSteps   []*PlanStep     `json:"undo_steps,omitempty" doc:"Steps that put it back."`
	Observed    *Observed       `json:"observed,omitempty" doc:"What its targets said of it, of a plan made with --live."`
	Finally     []*PlanStep     `json:"finally,omitempty" doc:"Of a runbook used as a step: steps that run at its end, whatever happened."`
	node        *Node
	unsure      bool // not all of its inputs are known
}

// PlanCondition is something that must hold, or is waited for.
type PlanCondition struct {
	Key     string      `json:"key" enum:"when,require,that,expect,wait-until,repeat-until,retry-if,ready,probe" doc:"The keyword that it stands under; that: the input of a check."`
	Text    string      `json:"text" doc:"The expression."`
	Value   *bool       `json:"value,omitempty" doc:"Whether it holds, where that can be told now."`
	Known   []PlanValue `json:"known,omitempty" doc:"What it reads of inputs, vars, targets and items, with the values."`
	After   string      `json:"after,omitempty" doc:"Why it cannot be told yet, such as: after look."`
	Message string      `json:"message,omitempty" doc:"What a person reads where it does not hold."`
}

// PlanOutput is a named expression.
type PlanOutput struct {
	Name string `json:"name" doc:"Name of the value."`
	Text string `json:"text" doc:"The expression that gives it."`
}

// PlanGate is a question to a person.
type PlanGate struct {
	Message   string      `json:"message" doc:"What the person is asked; empty where the kind asks by itself."`
	Show      []string    `json:"show,omitempty" doc:"Expressions that are shown with their values."`
	Shown     []PlanValue `json:"shown,omitempty" doc:"The same, with their values as far as they are known."`
	Approvals int         `json:"approvals,omitempty" doc:"How many different people, where it is more than one; then the one who started the run does not count."`
	Retype    string      `json:"retype,omitempty" doc:"Text that must be typed."`
	Timeout   string      `json:"timeout,omitempty" doc:"How long it waits for an answer; absent: without limit."`
	Each      string      `json:"each,omitempty" enum:"batch,item" doc:"On a loop: how often it is asked; absent: once."`
	Detached  bool        `json:"detached,omitempty" doc:"The process leaves while it waits."`
	Blind     []string    `json:"blind,omitempty" doc:"Guards that nobody watches while it waits detached."`
	Builtin   bool        `json:"builtin,omitempty" doc:"Asked by itself, because the kind destroys something."`
}

// PlanSetting is a setting that differs from nothing: every, stable, stall, timeout, retry, ….
type PlanSetting struct {
	Key   string `json:"key" doc:"The keyword."`
	Value string `json:"value" doc:"What is in force, as people write it."`
}

// PlanGuard is a stop condition.
type PlanGuard struct {
	ID      string       `json:"id" doc:"Name of the guard."`
	Kind    string       `json:"kind" doc:"Step kind that observes."`
	Targets []PlanTarget `json:"targets,omitempty" doc:"What is observed."`
	With    []PlanValue  `json:"with,omitempty" doc:"Inputs of the kind."`
	Require string       `json:"require" doc:"What must hold."`
	Known   []PlanValue  `json:"known,omitempty" doc:"What that reads of inputs, vars and targets, with the values."`
	Every   string       `json:"every" doc:"How often it looks."`
	For     string       `json:"for,omitempty" doc:"How long it must be false before it trips; absent: once is enough."`
	Then    string       `json:"then" enum:"pause,stop,rollback" doc:"What happens when it trips."`
}

// PlanWindow is when a step may start.
type PlanWindow struct {
	Days []string `json:"days,omitempty" doc:"Days of the week; absent: every day."`
	From string   `json:"from,omitempty" doc:"Start, HH:MM."`
	To   string   `json:"to,omitempty" doc:"End, HH:MM."`
	Zone string   `json:"zone,omitempty" doc:"Time zone."`
}

// PlanMaxAge is a deadline across pauses and restarts.
type PlanMaxAge struct {
	Of   string `json:"of" doc:"The longest it may take, from its first start on."`
	Then string `json:"then" enum:"pause,stop,rollback" doc:"What happens then."`
}

// PlanProbe is the author's read that tells whether an effect is there; its condition is
// among those of the step.
type PlanProbe struct {
	Kind    string       `json:"kind" doc:"Step kind that observes."`
	Targets []PlanTarget `json:"targets,omitempty" doc:"What is asked; absent: nothing."`
	With    []PlanValue  `json:"with,omitempty" doc:"Inputs of the kind."`
}

// PlanLoop says what a loop repeats over.
type PlanLoop struct {
	As      string `json:"as,omitempty" doc:"Name of the item."`
	Over    string `json:"over,omitempty" doc:"What gives the list; absent for a fan-out."`
	Items   int    `json:"items" doc:"How many items; -1: not known."`
	Unknown string `json:"unknown,omitempty" doc:"Why the items cannot be told."`
	Batches []int  `json:"batches,omitempty" doc:"Sizes of the waves."`
	Pause   string `json:"pause_between,omitempty" doc:"Pause between waves."`
}

// MakePlan tells what a run of the program with these inputs would do. The findings are
// what inputs bring to light that lint could not see: a value of the wrong kind, two
// items with one key, an expression that fails. With an error among them the plan is nil.
// An error of another kind is a *UsageError about the selection.
func MakePlan(p *Program, in *Inputs, sel Selection) (*Plan, []schema.Finding, error) {
	return makePlan(p, in, sel, nil)
}

// makePlan plans with what was seen of the targets; nil: nothing was.
func makePlan(p *Program, in *Inputs, sel Selection, seen *Observation) (*Plan, []schema.Finding, error) {
	chosen, err := p.Select(sel)
	if err != nil {
		return nil, nil, err
	}
	pl := &planner{program: p, seen: seen, chosen: chosen, reported: map[string]bool{}, facts: map[*Node]*nodeFacts{}}
	plan := &Plan{
		Format: 1, Name: p.Root.Book.Name.Value, Path: p.Root.Book.Path,
		Description: strings.TrimSpace(p.Root.Book.Description.Value), OnFailure: p.Root.OnFailure,
		Digest: p.Digest(in),
	}
	if plan.OnFailure == "" {
		plan.OnFailure = "stop"
	}
	if !reflect.DeepEqual(sel, Selection{}) {
		plan.Selection = &sel
	}
	for _, l := range p.Root.Book.Labels {
		if plan.Labels == nil {
			plan.Labels = map[string]string{}
		}
		plan.Labels[l.Key.Value] = l.Value.Value
	}
	s := pl.root(in, plan)
	plan.Steps = pl.list(s, p.Root.Steps)
	plan.Finally = pl.list(s, p.Root.Finally)
	plan.LeftOut = pl.leftOut
	plan.Summary = pl.head.summary()
	findings := schema.Sort(pl.findings)
	if schema.Failed(findings) {
		return nil, findings, nil
	}
	plan.Policies = p.judge(plan, s)
	return plan, findings, nil
}
