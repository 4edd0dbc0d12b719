package runner

import (
	"fmt"
	"time"
)

// GuardObserved is the body of guard-observed: what a guard saw when its answer changed, or
// at its first look.
type GuardObserved struct {
	Guard   string         `json:"guard"` // path: errors, or move/errors of a group in move
	Require string         `json:"require"`
	Holds   bool           `json:"holds"`
	Values  map[string]any `json:"values,omitempty"` // operands of the condition
	Error   *ErrorBody     `json:"error,omitempty"`  // why it could not be observed, which counts as not held
	Then    string         `json:"then,omitempty"`   // where it does not hold: what it will do
	For     string         `json:"for,omitempty"`    // and after how long; absent: at once
	// Overridden: it does not hold, and is passed over.
	Overridden bool `json:"overridden,omitempty"`
}

// GuardTripped is the body of guard-tripped; its step is the group, absent for the run.
type GuardTripped struct {
	Guard   string         `json:"guard"` // path of the guard; of a group whose max-age is over
	Then    string         `json:"then"`  // pause, stop, rollback
	Require string         `json:"require,omitempty"`
	For     string         `json:"for,omitempty"`     // how long it had to be false
	MaxAge  string         `json:"max_age,omitempty"` // instead of a condition: the deadline
	Since   time.Time      `json:"since"`             // since when it has not held; when the group started
	Again   bool           `json:"again,omitempty"`   // it had tripped before, and did not hold at the resume
	Values  map[string]any `json:"values,omitempty"`
	Error   *ErrorBody     `json:"error,omitempty"`

	element string // path of the group
}

// GuardOverridden is the body of guard-overridden: an operator lets the run go on.
type GuardOverridden struct {
	Guard  string `json:"guard"` // path, or an id: then all of that id
	Reason string `json:"reason"`
	*Person
}

// StepWaiting is the body of step-waiting: the step may not start before its window opens.
type StepWaiting struct {
	Window string    `json:"window"`
	Until  time.Time `json:"until"`
}

// Words says what the step waits for: until …
func (w *StepWaiting) Words() string {
	return fmt.Sprintf("its window (%s) opens %s", w.Window, w.Until.Format("Mon 2006-01-02 15:04 -0700"))
}

// Words says what was overridden, by whom and why, in one line.
func (o *GuardOverridden) Words() string { return "guard " + o.Guard + ": " + o.because() }

func (o *GuardOverridden) because() string {
	by := ""
	if o.Person != nil {
		by = " by " + o.By
	}
	return fmt.Sprintf("overridden%s: %s", by, o.Reason)
}

// Words says what the guard saw, in one line.
func (o *GuardObserved) Words() string {
	if !o.Holds {
		return o.words("does not hold")
	}
	return o.words("holds")
}

func (o *GuardObserved) words(verb string) string {
	return fmt.Sprintf("guard %s: %s %s%s", o.Guard, o.Require, verb, seenWords(o.Values, o.Error))
}

// Words says what tripped, in one line.
func (t *GuardTripped) Words() string {
	if t.MaxAge != "" {
		return fmt.Sprintf("max-age %s of %s is over: it started %s", t.MaxAge, t.Guard, t.Since.Format(time.RFC3339))
	}
	words := "does not hold"
	switch {
	case t.Again:
		words = "has not held since " + t.Since.Format(time.RFC3339)
	case t.For != "":
		words = "has not held for " + t.For
	}
	return fmt.Sprintf("guard %s: %s %s%s", t.Guard, t.Require, words, seenWords(t.Values, t.Error))
}

// brief says it without what was seen.
func (t *GuardTripped) brief() string {
	if t.MaxAge != "" {
		return "max-age of " + t.Guard
	}
	return "guard " + t.Guard
}

// seenWords is what a guard saw, in brackets.
func seenWords(values map[string]any, failure *ErrorBody) string {
	if failure != nil {
		return " (it cannot be observed: " + failure.Message + ")"
	}
	if words := (&StepObserved{Values: values}).Words(); len(values) > 0 {
		return " (" + words + ")"
	}
	return ""
}
