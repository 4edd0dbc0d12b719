package schema

import "time"

// Runbook is one file, decoded: every key of the language has a field here, and
// every leaf knows its place in the file. It says what the author wrote and
// nothing about what it means: kinds, names and expressions are bound by the runner.
//
// The yaml tags are the keys, the doc tags the reference text; decoding, JSON
// Schema and editor help are all derived from them. Tag options: "required",
// `enum:"a,b"` for words with a closed list, `means:"…|…"` for what each of them does,
// "pattern" for text, "keys" for the names in a map, "min" and "max" for numbers and durations.
type Runbook struct {
	Path   string `yaml:"-"`
	Source []byte `yaml:"-"`
	Span   Span   `yaml:"-"`

	Version     Leaf[int]         `yaml:"version,required" min:"1" doc:"Version of the runbook language; 1."`
	Name        Leaf[string]      `yaml:"name,required" pattern:"^[a-z0-9][a-z0-9-]*$" doc:"Name of the runbook, unique in the repository."`
	Labels      Map[Leaf[string]] `yaml:"labels" doc:"Free labels, for search and the change record."`
	Description Leaf[string]      `yaml:"description" doc:"What this runbook does, for its readers."`

	Inputs  Map[Input]        `yaml:"inputs" keys:"^[a-z][a-z0-9_]*$" doc:"What may differ from run to run."`
	Secrets Map[SecretSource] `yaml:"secrets" keys:"^[a-z][a-z0-9_]*$" doc:"Values that are never printed, journaled or part of a plan."`
	Vars    Map[Value]        `yaml:"vars" keys:"^[a-z][a-z0-9_]*$" doc:"Values named once and evaluated once, in order."`
	Targets Map[Target]       `yaml:"targets" keys:"^[a-z][a-z0-9_]*$" doc:"The systems acted upon; may instead come from an inventory file."`

	Lock      *Lock        `yaml:"lock" doc:"One run at a time on the thing of this name."`
	Defaults  *Defaults    `yaml:"defaults" doc:"Settings that every step inherits."`
	Guards    []Guard      `yaml:"guards" doc:"Stop conditions, watched during the whole run."`
	Policy    []Policy     `yaml:"policy" doc:"Expressions over the plan that deny or warn."`
	OnFailure Leaf[string] `yaml:"on-failure" enum:"stop,rollback" means:"Stop where it is; the run can be resumed.|Undo what the run has done, as far as there is a way back." doc:"What a failed step does to the run: stop where it is, resumable, or roll back."`

	Steps   []Step    `yaml:"steps,required" doc:"What is done, in order."`
	Finally []Step    `yaml:"finally" doc:"Steps that run at the end of every run, whatever happened."`
	Outputs Map[Expr] `yaml:"outputs" keys:"^[a-z][a-z0-9_]*$" doc:"What a caller of this runbook sees."`
}

// Inventory is a file of targets and inputs alone, so that one runbook serves many installations.
type Inventory struct {
	Path    string      `yaml:"-"`
	Source  []byte      `yaml:"-"`
	Targets Map[Target] `yaml:"targets" keys:"^[a-z][a-z0-9_]*$" doc:"Targets; each replaces the runbook's of that name whole."`
	Inputs  Map[Value]  `yaml:"inputs" keys:"^[a-z][a-z0-9_]*$" doc:"Values for the runbook's inputs."`
}

// Input declares what may differ from run to run.
type Input struct {
	Type        Leaf[string] `yaml:"type,required" enum:"string,int,float,bool,duration,size,addr,slots,list,map,target,secret" means:"Text.|A whole number.|A number.|true or false.|A time such as 500ms, 30s, 10m or 7d.|Bytes, or text such as 64mb.|An address host:port.|An integer, a list of integers, or text such as 0-3,8.|A list.|A map.|The name of a target, of the kind that kind says.|Given from secrets alone, never journaled." doc:"Type of the value."`
	Kind        Leaf[string] `yaml:"kind" doc:"For type target: the kind of target wanted."`
	Description Leaf[string] `yaml:"description" doc:"What the input means, with its unit."`
	Default     *Value       `yaml:"default" doc:"Value when none is given; absent, the input is required."`
	Check       *Expr        `yaml:"check" doc:"Expression over value that must hold."`
	Enum        []Value      `yaml:"enum" doc:"The only values allowed."`
	Pattern     Leaf[string] `yaml:"pattern" doc:"Regular expression (RE2) the whole text must match."`
	Min         *Value       `yaml:"min" doc:"Smallest value allowed."`
	Max         *Value       `yaml:"max" doc:"Largest value allowed."`
}

// SecretSource says where a secret is read from; exactly one source.
type SecretSource struct {
	Span    Span           `yaml:"-"`
	Env     Leaf[string]   `yaml:"env" doc:"Environment variable that holds it."`
	File    Leaf[string]   `yaml:"file" doc:"File that holds it; one trailing newline is dropped."`
	Command []Leaf[string] `yaml:"command" doc:"Command (argv) that prints it; one trailing newline is dropped."`
}

// Target declares a system acted upon. Config holds the keys of its kind.
type Target struct {
	Span   Span              `yaml:"-"`
	Kind   Leaf[string]      `yaml:"kind,required" doc:"Kind of target."`
	Group  Leaf[string]      `yaml:"group" doc:"Group the target belongs to, for targets: {group: …}."`
	Labels Map[Leaf[string]] `yaml:"labels" doc:"Labels, for targets: {labels: …}."`
	Facts  Map[Value]        `yaml:"facts" doc:"Free fields, read as targets.NAME.facts.FIELD."`
	Config Map[Value]        `yaml:",rest"`
}

// Lock names the thing that only one run at a time may work on.
type Lock struct {
	Span   Span         `yaml:"-"`
	Name   Text         `yaml:"name,required" doc:"Name of the thing, such as codis/demo."`
	Target Leaf[string] `yaml:"target" doc:"ZooKeeper target that holds the lock; without it a file lock in the state directory."`
	Hold   Leaf[string] `yaml:"hold" enum:"run" means:"Keep the claim across pauses and restarts, until the run is over." doc:"run: keep the claim across pauses and restarts, until the run is over."`
}

// Defaults are inherited by every step of the file that does not say otherwise.
type Defaults struct {
	Span           Span                `yaml:"-"`
	Every          Leaf[time.Duration] `yaml:"every" min:"1ms" doc:"Cadence of polls."`
	Timeout        Leaf[time.Duration] `yaml:"timeout" doc:"Time limit of a step, retries and waiting included."`
	AttemptTimeout Leaf[time.Duration] `yaml:"attempt-timeout" doc:"Time limit of one attempt."`
	Retry          *Retry              `yaml:"retry" doc:"How failed attempts are repeated."`
	HTTP           *HTTPDefaults       `yaml:"http" doc:"Defaults of http steps."`
}

// HTTPDefaults are inherited by http steps.
type HTTPDefaults struct {
	Headers Map[Text] `yaml:"headers" doc:"Headers sent with every request."`
}

// Guard is a stop condition, watched with its own cadence.
type Guard struct {
	Span    Span                `yaml:"-"`
	ID      Leaf[string]        `yaml:"id,required" pattern:"^[a-z][a-z0-9_]*$" doc:"Name of the guard."`
	Uses    Leaf[string]        `yaml:"uses,required" doc:"Step kind that observes; read-only."`
	Target  *Value              `yaml:"target" doc:"Target observed."`
	With    Map[Value]          `yaml:"with" doc:"Inputs of the kind."`
	Every   Leaf[time.Duration] `yaml:"every" min:"1ms" doc:"Cadence."`
	Require Expr                `yaml:"require,required" doc:"Expression over the kind's outputs that must hold."`
	For     Leaf[time.Duration] `yaml:"for" doc:"How long it must be false before it trips."`
	Then    Leaf[string]        `yaml:"then" enum:"pause,stop,rollback" means:"Wait for an operator: runner resume goes on.|Fail; the run can be resumed.|Undo what has been done." doc:"What happens when it trips."`
}

// Policy is asked of the plan: an expression of the author's own (deny, warn), or what
// becomes of a built-in one (enforce, waive). Exactly one of the four.
type Policy struct {
	Span     Span         `yaml:"-"`
	Deny     *Expr        `yaml:"deny" doc:"Expression over the plan; true refuses the run."`
	Warn     *Expr        `yaml:"warn" doc:"Expression over the plan; true warns."`
	Message  Text         `yaml:"message" doc:"What a person reads where deny or warn holds; the expression."`
	Enforce  Leaf[string] `yaml:"enforce" enum:"all,destroy-confirmed,destroy-verified,cutover-verified,cutover-bounded,wait-stable,lock-held,way-back" means:"Every built-in policy.|A person says yes before something is destroyed.|Something looks at the world between the last cut-over and what destroys.|Something looks whether what is cut over to is ready.|How long clients may wait at a cut-over is bounded.|The last wait on a lag before a cut-over has stable.|What destroys or moves traffic on a shared system has a lock.|What changes something can be put back, or says why not." doc:"A built-in policy that refuses the run, not only warns; all: every one of them."`
	Waivable Leaf[bool]   `yaml:"waivable" doc:"In a policy file, beside enforce: a runbook may waive it with a reason."`
	Waive    Leaf[string] `yaml:"waive" enum:"destroy-confirmed,destroy-verified,cutover-verified,cutover-bounded,wait-stable,lock-held,way-back" means:"A person says yes before something is destroyed.|Something looks at the world between the last cut-over and what destroys.|Something looks whether what is cut over to is ready.|How long clients may wait at a cut-over is bounded.|The last wait on a lag before a cut-over has stable.|What destroys or moves traffic on a shared system has a lock.|What changes something can be put back, or says why not." doc:"A built-in policy that does not apply here."`
	Reason   Leaf[string] `yaml:"reason" doc:"Why it is waived; shown in the plan."`
}

// PolicyFile is a file of policies alone, which a team asks of every plan.
type PolicyFile struct {
	Path   string   `yaml:"-"`
	Source []byte   `yaml:"-"`
	Policy []Policy `yaml:"policy,required" doc:"Expressions over the plan that deny or warn, and built-in policies to enforce or waive."`
}

// Step is one element of a list of steps: a kind (uses) or a group (steps).
type Step struct {
	Span Span `yaml:"-"`

	ID   Leaf[string]   `yaml:"id,required" pattern:"^[a-z][a-z0-9_]*$" doc:"Name of the step, unique in the file: what diffs, journals and resumes name."`
	Name Text           `yaml:"name" doc:"One line for people."`
	Why  Text           `yaml:"why" doc:"Why this step is there, for reviewers."`
	Tags []Leaf[string] `yaml:"tags" doc:"Select with --only and --skip."`

	When    *Expr    `yaml:"when" doc:"Guard: false skips the step and says why."`
	Require Exprs    `yaml:"require" doc:"Preconditions: false fails the step before it acts."`
	Confirm *Confirm `yaml:"confirm" doc:"A person must approve before the step acts; false waives the question a destructive kind asks by itself."`

	ForEach      *Value             `yaml:"for-each" doc:"Repeat over a list, map, slot set, or (as text) an expression."`
	As           Leaf[string]       `yaml:"as" pattern:"^[a-z][a-z0-9_]*$" doc:"Name of the item; item."`
	Key          *Value             `yaml:"key" doc:"Names an item in the journal; the item itself."`
	MaxParallel  Dyn[int]           `yaml:"max-parallel" min:"1" doc:"How many items at the same time; 1."`
	Batch        *Value             `yaml:"batch" doc:"Sizes of waves, in items or % of the whole list; the last repeats."`
	PauseBetween Dyn[time.Duration] `yaml:"pause-between" doc:"Pause between waves."`
	MaxFailures  Dyn[int]           `yaml:"max-failures" min:"0" doc:"How many items may fail before the loop fails; 0."`
	OnChange     Leaf[string]       `yaml:"on-change" enum:"stop,add" means:"Refuse to go on.|Do the new items as well." doc:"What to do when the list differs at a resume."`
	Repeat       *Repeat            `yaml:"repeat" doc:"Repeat a group until an expression holds."`
	Parallel     Leaf[bool]         `yaml:"parallel" doc:"Run the children of the group at the same time."`

	Uses       Leaf[string] `yaml:"uses" doc:"A step kind, or ./path.yaml for a runbook used as a step."`
	Target     *Value       `yaml:"target" doc:"Target acted upon: a name, an expression of type target, or an inline map with a literal kind."`
	Targets    *Value       `yaml:"targets" doc:"Fan out over these targets: a list of names, {group: NAME} or {labels: {…}}."`
	With       Map[Value]   `yaml:"with" doc:"Inputs of the kind."`
	Effect     Leaf[string] `yaml:"effect" enum:"read,write,cutover,destroy" means:"Changes nothing; may be polled, repeated, and run by a dry run.|Changes state; service is unaffected.|Moves live traffic.|Data or an instance is gone afterwards; asks a person." doc:"Effect, for kinds that cannot know."`
	Idempotent Leaf[bool]   `yaml:"idempotent" doc:"Whether doing it twice equals doing it once, for kinds that cannot know."`
	Background Leaf[bool]   `yaml:"background" doc:"Keep it running until the run ends or a stop-background step names it."`
	Ready      *Expr        `yaml:"ready" doc:"For background steps: go on once this holds."`

	WaitUntil *Expr              `yaml:"wait-until" doc:"Poll this read-only kind until the expression over its outputs holds."`
	Every     Dyn[time.Duration] `yaml:"every" min:"1ms" doc:"Cadence of the poll; 1s."`
	Stable    Dyn[time.Duration] `yaml:"stable" doc:"How long the condition must have held without a break."`
	Stall     Dyn[time.Duration] `yaml:"stall" doc:"Fail early when the number compared has not come closer for this long."`
	WaitAll   Leaf[bool]         `yaml:"wait-all" doc:"On a fan-out: one stable window over all items together."`
	Expect    Exprs              `yaml:"expect" doc:"Postconditions over the outputs: false fails the attempt."`

	Retry          *Retry             `yaml:"retry" doc:"How failed attempts are repeated."`
	Timeout        Dyn[time.Duration] `yaml:"timeout" doc:"Time limit of the whole step, retries and waiting included; 10m."`
	AttemptTimeout Dyn[time.Duration] `yaml:"attempt-timeout" doc:"Time limit of one attempt."`

	Undo            *Undo        `yaml:"undo" doc:"auto (the kind's own inverse), none, or a list of steps."`
	Restore         Leaf[string] `yaml:"restore" enum:"end" means:"Put it back when the run is over." doc:"end: a temporary setting, put back when the run is over."`
	PointOfNoReturn Leaf[bool]   `yaml:"point-of-no-return" doc:"Once this step has started, nothing before it is rolled back."`
	Probe           *Probe       `yaml:"probe" doc:"A read that tells whether the effect is there, for kinds that cannot know."`
	Recheck         Leaf[bool]   `yaml:"recheck" doc:"A read step that runs again at every resume."`
	OnFailure       Leaf[string] `yaml:"on-failure" enum:"stop,continue,rollback,rollback-item,rollback-run" means:"Stop where it is; the run can be resumed.|Go on with the next step.|Undo what started inside this step, group or loop.|Undo the item of the loop that failed.|Undo the whole run." doc:"What a failure of this step does."`

	Guards []Guard `yaml:"guards" doc:"Stop conditions while this group runs."`
	MaxAge *MaxAge `yaml:"max-age" doc:"Deadline of this group, across pauses and restarts."`
	Window *Window `yaml:"window" doc:"Outside this window the step waits."`

	Outputs Map[Expr] `yaml:"outputs" keys:"^[a-z][a-z0-9_]*$" doc:"Extra named values for later steps."`

	Steps      []Step `yaml:"steps" doc:"A group instead of uses."`
	AfterBatch []Step `yaml:"after-batch" doc:"Steps that run after each wave; they see batch.index and batch.items."`
	Rescue     []Step `yaml:"rescue" doc:"Steps that run when this one failed; if they succeed the run goes on."`
}

// Confirm asks a person. Written as text, as a map, or as false.
type Confirm struct {
	Span      Span                `yaml:"-"`
	Waived    bool                `yaml:"-"` // confirm: false
	Message   Text                `yaml:"message" doc:"What the person is asked."`
	Show      []Expr              `yaml:"show" doc:"Expressions shown with their values."`
	Approvals Leaf[int]           `yaml:"approvals" min:"1" doc:"How many different people; with 2 or more the starter's own does not count."`
	Retype    Text                `yaml:"retype" doc:"Text the person must type."`
	Timeout   Leaf[time.Duration] `yaml:"timeout" doc:"How long to wait for an answer; no limit."`
	Each      Leaf[string]        `yaml:"each" enum:"run,batch,item" means:"Once.|Before each wave.|Before each item." doc:"On a loop: how often it is asked."`
	Wait      Leaf[string]        `yaml:"wait" enum:"attached,detached" means:"The process stays, and keeps lock and guards.|The process leaves with exit 4; nobody watches guards meanwhile." doc:"attached: the process stays, unwritten only where there is a terminal; detached: it leaves with exit 4."`
}

// Repeat runs a group again until an expression holds.
type Repeat struct {
	Span  Span               `yaml:"-"`
	Until Expr               `yaml:"until,required" doc:"Expression that ends the repetition."`
	Max   Dyn[int]           `yaml:"max,required" min:"1" doc:"Most passes."`
	Every Dyn[time.Duration] `yaml:"every" min:"1ms" doc:"Cadence of passes."`
}

// Retry says how failed attempts are repeated.
type Retry struct {
	Span     Span               `yaml:"-"`
	Attempts Dyn[int]           `yaml:"attempts" min:"1" doc:"Attempts in all."`
	Delay    Dyn[time.Duration] `yaml:"delay" doc:"Delay before the second attempt."`
	Factor   Leaf[float64]      `yaml:"factor" min:"1" doc:"Each later delay is this many times the one before."`
	MaxDelay Dyn[time.Duration] `yaml:"max-delay" doc:"Longest delay."`
	Jitter   Leaf[float64]      `yaml:"jitter" min:"0" max:"1" doc:"Random part of each delay, 0 to 1."`
	If       *Expr              `yaml:"if" doc:"Only errors for which this holds are tried again."`
}

// Probe is a read that tells whether a step's effect is there.
type Probe struct {
	Span   Span         `yaml:"-"`
	Uses   Leaf[string] `yaml:"uses,required" doc:"Step kind that observes."`
	Target *Value       `yaml:"target" doc:"Target observed; the step's own."`
	With   Map[Value]   `yaml:"with" doc:"Inputs of the kind."`
	Done   Expr         `yaml:"done,required" doc:"Expression over its outputs: the effect is there."`
}

// Undo is auto, none or a list of steps.
type Undo struct {
	Span  Span
	Mode  string // "auto", "none", "steps"
	Steps []Step
}

// MaxAge is a deadline across pauses and restarts.
type MaxAge struct {
	Span Span                `yaml:"-"`
	Of   Leaf[time.Duration] `yaml:"of,required" doc:"The longest the group may take."`
	Then Leaf[string]        `yaml:"then" enum:"pause,stop,rollback" means:"Wait for an operator: runner resume goes on.|Fail; the run can be resumed.|Undo what has been done." doc:"What happens then."`
}

// Window is when a step may start.
type Window struct {
	Span Span           `yaml:"-"`
	Days []Leaf[string] `yaml:"days" enum:"mon,tue,wed,thu,fri,sat,sun" doc:"Days of the week."`
	From Leaf[string]   `yaml:"from" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" doc:"Start, HH:MM."`
	To   Leaf[string]   `yaml:"to" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" doc:"End, HH:MM."`
	Zone Leaf[string]   `yaml:"zone" doc:"Time zone, such as Asia/Shanghai."`
}
