package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// What a look at the targets says of a step.
const (
	ObservedSame    = "already-so"   // what it wants is there
	ObservedChange  = "would-change" // it would act
	ObservedOK      = "ok"           // a read, and what it expects holds
	ObservedWait    = "would-wait"   // a read that would wait: its condition does not hold yet
	ObservedSkip    = "skipped"      // its when is false
	ObservedFail    = "failed"       // known to fail
	ObservedUnknown = "unknown"      // hangs on what an earlier step would change
)

// Observation is what a look at all targets has shown, a step at a time, in the order of
// the plan. It holds no secret: it is made of masked records.
type Observation struct {
	At    time.Time   `json:"at"`
	Steps []*Observed `json:"steps"`

	failed *Result // of the step that is known to fail; nil: none
	byPath map[string]*Observed
}

// Observed is what a look at the targets has shown of one step.
type Observed struct {
	Step       string              `json:"step" doc:"Path of the step, as journals name it."`
	State      string              `json:"state" enum:"already-so,would-change,ok,would-wait,skipped,failed,unknown" doc:"already-so: what it wants is there. would-change: it would act. ok: it reads, and what it expects holds. would-wait: its wait-until does not hold yet. skipped: its when is false. failed: it is known to fail. unknown: it hangs on what an earlier step would change."`
	Because    string              `json:"because,omitempty" doc:"The earlier step that would change what it looks at: of unknown the reason; of would-change it says that the state before is that of now."`
	Servers    []PlanTarget        `json:"servers,omitempty" doc:"What it acts on or asks, as found now."`
	With       []PlanValue         `json:"with,omitempty" doc:"Of a step that is no read: those of its inputs that are expressions, evaluated."`
	Lines      []steps.Line        `json:"lines,omitempty" doc:"What it would send, with the state before and after."`
	Conditions []ObservedCondition `json:"conditions,omitempty" doc:"What it asks, with the answers."`
	Items      []FrozenItem        `json:"items,omitzero" doc:"Items of a loop that only a run can know."`
	Keys       *int64              `json:"keys,omitempty" doc:"Keys that its server has, where its kind counts them."`
	Error      *ErrorBody          `json:"error,omitempty" doc:"Why it is known to fail."`
}

// ObservedCondition is a condition as it was found.
type ObservedCondition struct {
	Key    string      `json:"key" enum:"when,require,expect,wait-until" doc:"The keyword that it stands under."`
	Text   string      `json:"text" doc:"The expression."`
	Holds  *bool       `json:"holds,omitempty" doc:"Whether it holds; absent: it could not be told."`
	Values []PlanValue `json:"values,omitempty" doc:"Its parts, with their values."`
	Why    string      `json:"why,omitempty" doc:"Why it could not be told."`
}

// observed is what a dry run has seen of a step that ends with body. The act of a step
// that did not come to ask its target has no kind.
func (x *run) observed(a *act, body *StepFinished, because string) *Observed {
	o := &Observed{Step: a.path, State: body.Status, Because: because, Error: body.Error, Conditions: x.judged(a)}
	if a.kind == nil {
		return o
	}
	o.Servers = a.servers()
	switch {
	case a.effect != steps.Read && body.Status == statusOK && a.kind.Engine == steps.EngineNone:
		o.State = ObservedSame
	case body.Status == statusUnknown && o.waits():
		o.State, o.Because = ObservedWait, ""
	}
	if a.effect != steps.Read && !a.kind.NothingToUndo {
		o.With = x.given(a)
	}
	o.Lines = a.lines
	o.Keys = a.keys()
	return o
}

// waits says that the condition of a wait is known not to hold yet.
func (o *Observed) waits() bool {
	for _, c := range o.Conditions {
		if c.Key == "wait-until" && c.Holds != nil && !*c.Holds {
			return true
		}
	}
	return false
}

// servers are what a step acts on or asks: its own target first, then those its inputs name.
func (a *act) servers() []PlanTarget {
	var all []PlanTarget
	if a.target != nil {
		all = append(all, PlanTarget{Name: a.target.Name, Kind: a.target.Kind, Addr: a.target.addr})
	}
	for _, name := range peers(a.in) {
		if t := a.s.frame.find(name); t != nil {
			all = append(all, PlanTarget{Name: name, Kind: t.Kind, Addr: t.addr})
		} else {
			all = append(all, PlanTarget{Name: name})
		}
	}
	return all
}

// given are the inputs of a step that are expressions, evaluated.
func (x *run) given(a *act) []PlanValue {
	if a.n.With == nil || a.n.With.Constant {
		return nil
	}
	var list []PlanValue
	for i := range a.n.With.Map {
		e := &a.n.With.Map[i]
		if e.Value.Constant {
			continue
		}
		v, err := x.eval(a.s, e.Value)
		if err != nil {
			continue // bind has said so
		}
		list = append(list, PlanValue{Name: e.Key, Value: jsonable(plain(v))})
	}
	return list
}

// keys are those that the server of a step has, as far as its kind counts them.
func (a *act) keys() *int64 {
	for i := range a.lines {
		if k := a.lines[i].Keys; k != nil {
			return k
		}
	}
	if a.out == nil || a.target == nil || !strings.HasPrefix(a.kind.Name, a.target.Kind+".") {
		return nil // another system may answer with a number that is old
	}
	for _, f := range a.kind.Outputs {
		if !f.Keys || a.hidden(f) {
			continue
		}
		if n, ok := expression.Value(a.out).(map[string]any)[f.Name].(int); ok {
			keys := int64(n)
			return &keys
		}
	}
	return nil
}

// judged are the conditions of a step that are asked before it acts, and those about its
// own outputs, in this order.
func (x *run) judged(a *act) []ObservedCondition {
	n, whole := a.n, a.path == a.s.prefix+a.n.ID
	looped := n.Loop != nil || n.FanOut
	var list []ObservedCondition
	if n.When != nil && !(looped && whole) {
		c := x.judge(a, "when", n.When, nil)
		list = append(list, c)
		if c.Holds == nil || !*c.Holds {
			return list // nothing else is asked
		}
	}
	if whole {
		for _, c := range n.Require {
			list = append(list, x.judge(a, "require", c, nil))
		}
	}
	if looped && whole || a.result == nil {
		return list
	}
	if n.Wait != nil {
		list = append(list, x.judge(a, "wait-until", n.Wait.Until, a.result))
	}
	for _, c := range n.Expect {
		list = append(list, x.judge(a, "expect", c, a.result))
	}
	return list
}

func (x *run) judge(a *act, key string, c *Condition, own map[string]any) ObservedCondition {
	o := ObservedCondition{Key: key, Text: c.Expr.Source}
	holds, err := x.holds(a.s, c, own)
	var unknown *unknownError
	if errors.As(err, &unknown) {
		o.Why = unknown.Error()
		return o
	}
	if err != nil {
		o.Why = err.Error()
	} else {
		o.Holds = &holds
	}
	for _, p := range c.Expr.Parts(x.env(a.s, own, c.Expr.Refs)) {
		if p.Text == o.Text {
			continue // it is its own part: its value is the answer
		}
		o.Values = append(o.Values, PlanValue{Name: p.Text, Value: partValue(p.Value)})
	}
	return o
}

// partValue is the value of a part as JSON has it; what is made of others, and may be
// long, as people read it.
func partValue(v any) any {
	switch reflect.ValueOf(v).Kind() {
	case reflect.Map, reflect.Slice:
		return show(v)
	}
	switch v := v.(type) {
	case string:
		return show(v)
	case error:
		return v.Error()
	}
	return jsonable(v)
}

// Words tell an observation, one fact a line.
func (o *Observed) Words() []string {
	if o == nil {
		return nil
	}
	lines := []string{o.first()}
	for i := range o.Conditions {
		lines = append(lines, o.Conditions[i].words())
	}
	for _, l := range o.Lines {
		lines = append(lines, wouldSend+l.String())
	}
	for _, it := range o.Items {
		lines = append(lines, "item: "+it.Key)
	}
	if o.Keys != nil && !slices.ContainsFunc(o.Lines, func(l steps.Line) bool { return l.Keys != nil }) {
		lines = append(lines, "keys: "+fmt.Sprint(*o.Keys))
	}
	return lines
}

// first is the observation as a whole.
func (o *Observed) first() string {
	words := observedWords[o.State]
	switch {
	case o.State == ObservedUnknown && o.Because != "":
		return (&unknownError{o.Because}).Error()
	case o.Because != "":
		return words + " (as it is now, before step " + o.Because + ")"
	case o.Error != nil:
		return words + ": " + o.Error.Message
	}
	return words
}

const wouldSend = "would send: "

var observedWords = map[string]string{
	ObservedSame: "already so", ObservedChange: "would change", ObservedOK: "ok", ObservedWait: "would wait",
	ObservedSkip: "would be skipped", ObservedFail: "would fail", ObservedUnknown: "unknown",
}

func (c *ObservedCondition) words() string { return c.Key + " " + c.Text + ": " + c.answer() }

// answer is whether it holds, with the values of its parts.
func (c *ObservedCondition) answer() string {
	text := c.Why
	if c.Holds != nil {
		text = fmt.Sprint(*c.Holds)
	}
	parts := make([]string, 0, len(c.Values))
	for _, v := range c.Values {
		parts = append(parts, v.Name+" = "+valueText(v.Value))
	}
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// valueText is a value on one line; the same, whether it was just seen or read from JSON.
func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return v
	case schema.Slots:
		return v.String()
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}
