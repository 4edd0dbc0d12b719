package runner

import (
	"cmp"
	"fmt"
	"strings"
)

// Drift is one fact that is not what it was when the plan was made.
type Drift struct {
	Step   string `json:"step"`
	Target string `json:"target,omitempty"`
	Fact   string `json:"fact"`
	Was    string `json:"was"`
	Is     string `json:"is"`
}

// String is the drift on one line.
func (d Drift) String() string {
	where := d.Step
	if d.Target != "" {
		where += " on " + d.Target
	}
	return fmt.Sprintf("%s: %s: %s → %s", where, d.Fact, d.Was, d.Is)
}

// DriftError refuses a saved plan because the world is not as it was observed.
type DriftError struct {
	Plan   string // id
	Drifts []Drift
}

func (e *DriftError) Error() string {
	return fmt.Sprintf("saved plan %s does not fit any more: %s drifted since it was made; nothing was done", e.Plan, plural(len(e.Drifts), "fact"))
}

// fact is one thing that a decision rests on.
type fact struct {
	name string
	text string // what is compared
	show string // what is shown, with what moves by itself; empty: text
	null bool   // it could not be told
}

func (f fact) shown() string {
	if f.show != "" {
		return f.show
	}
	return f.text
}

// Drift tells which facts of an observation are others now, in the order of the plan.
//
// A fact is what the yes to a plan rests on: whether a step would act, what it would
// send, what it would find before and leave behind, the answers to its conditions, the
// addresses it goes to, the items of a loop, and the inputs of steps that act. The values
// that lead there (a lag, an offset, a count, an age) move by themselves: they are shown,
// and count through the answers that rest on them. Whether a wait is over yet is such a
// value. What was unknown then is no fact; what was known and is not any more has drifted.
func (o *Observation) Drift(now *Observation) []Drift {
	var drifts []Drift
	for _, was := range o.Steps {
		if was.State == ObservedUnknown {
			continue
		}
		drifts = append(drifts, was.drift(now.byPath[was.Step])...)
	}
	return drifts
}

// drift compares what was observed of a step with what is now; nil: it is not looked at.
func (o *Observed) drift(now *Observed) []Drift {
	target := ""
	if len(o.Servers) > 0 {
		target = o.Servers[0].Name
	}
	var drifts []Drift
	add := func(name, was, is string) {
		drifts = append(drifts, Drift{Step: o.Step, Target: target, Fact: name, Was: was, Is: is})
	}
	then := o.state()
	if now == nil {
		add(then.name, then.shown(), "is not looked at any more")
		return drifts
	}
	is := now.state()
	if then.text != is.text {
		add(then.name, then.shown(), is.shown())
	}
	if now.State == ObservedUnknown {
		return drifts // all else is unknown for the same reason
	}
	thenFacts, nowFacts := o.answers(), now.answers()
	if then.text == is.text {
		thenFacts, nowFacts = append(o.reach(), thenFacts...), append(now.reach(), nowFacts...)
	}
	byName := make(map[string]fact, len(nowFacts))
	for _, f := range nowFacts {
		byName[f.name] = f
	}
	for _, f := range thenFacts {
		is, there := byName[f.name]
		delete(byName, f.name)
		switch {
		case f.null:
		case !there:
			add(f.name, f.shown(), "not there")
		case f.text != is.text:
			add(f.name, f.shown(), is.shown())
		}
	}
	for _, f := range nowFacts {
		if _, left := byName[f.name]; left {
			add(f.name, "not there", f.shown())
		}
	}
	return drifts
}

// state is what the step as a whole comes to. A wait that is not over, and one that is,
// are the same: the target answers.
func (o *Observed) state() fact {
	f := fact{name: "state", text: o.State, show: o.first()}
	switch o.State {
	case ObservedWait:
		f.text = ObservedOK
	case ObservedFail:
		if o.Error != nil {
			f.text += " " + o.Error.Kind
		}
	case ObservedChange:
		for i, l := range o.Lines {
			if i == 0 {
				f.show += ": "
			} else {
				f.show += "; "
			}
			f.show += l.String()
		}
	}
	return f
}

// answers are what conditions and lists come to.
func (o *Observed) answers() []fact {
	var list []fact
	for i := range o.Conditions {
		c := &o.Conditions[i]
		if c.Key == "wait-until" {
			continue
		}
		f := fact{name: c.Key + " " + c.Text, null: c.Holds == nil, text: c.Why, show: c.answer()}
		if c.Holds != nil {
			f.text = fmt.Sprint(*c.Holds)
		}
		list = append(list, f)
	}
	if o.Items != nil {
		keys := make([]string, len(o.Items))
		for i, it := range o.Items {
			keys[i] = it.Key
		}
		list = append(list, fact{name: "items", text: strings.Join(keys, ", "), show: cmp.Or(strings.Join(keys, ", "), "none")})
	}
	return list
}

// reach is where a step goes, with what, and what it would send: the state before and after.
func (o *Observed) reach() []fact {
	var list []fact
	for _, s := range o.Servers {
		addr := s.Addr
		if addr == "" {
			addr = s.Name
		}
		list = append(list, fact{name: "address of " + s.Name, text: addr})
	}
	for _, v := range o.With {
		list = append(list, fact{name: "with " + v.Name, text: valueText(v.Value)})
	}
	for i, l := range o.Lines {
		nth := ""
		if len(o.Lines) > 1 {
			nth = fmt.Sprintf(" %d", i+1)
		}
		command := l.Command
		if l.Target != "" {
			command = l.Target + ": " + command
		}
		list = append(list, fact{name: "sends" + nth, text: command})
		if l.From != "" {
			list = append(list, fact{name: "before" + nth, text: l.From})
		}
		if l.To != "" {
			list = append(list, fact{name: "after" + nth, text: l.To})
		}
	}
	return list
}
