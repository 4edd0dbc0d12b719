// Package diff tells what a change of a runbook means.
//
// Two programs are compared by what their steps do, not by their text: ids pair the steps,
// then equal and similar meaning does; runbooks used as steps are seen through, vars are put
// in their places, expressions are compared in their canonical form. What is left are
// [Change]s, each with a level, the rule that gave it and a reason in words. Compare is a
// pure function of the two programs and the values of their inputs.
//
// Start at compare.go. book.go unfolds a program into a tree of steps, match.go pairs two of
// them, order.go sees what moved, facts.go compares field by field, judge.go and the files
// judge*.go say how dangerous a difference is, rules.go is the table of their verdicts.
package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"runbook/schema"
)

// Level is how dangerous a change is.
type Level int

// The levels, the worst last.
const (
	Harmless Level = iota // means the same, in another place or under another name
	Notice                // worth reading
	Caution               // may be wanted, and can hurt
	Danger                // takes away what protected something, or puts more at stake
)

var levelNames = [...]string{"harmless", "notice", "caution", "danger"}

// String gives the level's word.
func (l Level) String() string { return levelNames[l] }

// MarshalText gives the level's word.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Change is one thing that a new runbook means otherwise than the old one.
type Change struct {
	Level Level  `json:"level"`
	Rule  string `json:"rule"` // name of the verdict, of Rules
	// What is changed: run, step, input, var, target, secret, lock, guard, policy or output.
	What string `json:"what"`
	// Name of it; of a step its id, behind those of the runbooks that it is used by: cut/hold.
	Name string `json:"name,omitempty"`
	// Field is the key that differs; empty where the whole is there or gone or in another place.
	Field string `json:"field,omitempty"`
	// Before and After are the values as the author wrote them; empty where there is none.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	Reason string `json:"reason"`
	// Also are other places that have the same change: steps of a runbook that is used twice.
	Also []string `json:"also,omitempty"`
	// Side says which runbook the place is of: new, or old for what is gone.
	Side      string `json:"side"`
	Path      string `json:"path"`
	Line      int    `json:"line"`
	Column    int    `json:"column"`
	EndLine   int    `json:"end_line"`
	EndColumn int    `json:"end_column"`

	order int // in the text of the side
}

// Subject is what is changed, in words.
func (c *Change) Subject() string { return strings.TrimSpace(c.What + " " + c.Name) }

// Finding is the change as one, for what shows findings: danger is an error, caution a
// warning, the rest a note.
func (c *Change) Finding() schema.Finding {
	severity := schema.Note
	switch c.Level {
	case Danger:
		severity = schema.Error
	case Caution:
		severity = schema.Warning
	}
	return schema.Finding{Path: c.Path, Line: c.Line, Column: c.Column, EndLine: c.EndLine, EndColumn: c.EndColumn,
		Severity: severity, Rule: c.Rule, Message: c.line() + ": " + c.Reason}
}

// line is the change in one line, without level and reason.
func (c *Change) line() string {
	words := c.Subject()
	if c.Field != "" {
		words += ": " + c.Field
	}
	switch {
	case c.Before != "" && c.After != "":
		words += ": " + c.Before + " → " + c.After
	case c.Before != "":
		words += ": " + c.Before + " → (none)"
	case c.After != "":
		words += ": (none) → " + c.After
	}
	return words
}

func (c *Change) at(side, path string, span schema.Span) {
	c.Side, c.Path = side, path
	c.Line, c.Column, c.EndLine, c.EndColumn = max(span.Start.Line, 1), max(span.Start.Column, 1), max(span.End.Line, 1), max(span.End.Column, 1)
}

// sorted puts the most dangerous first; what is as dangerous by the severity of its rule,
// then in the order of the text. A change that several uses of one runbook have is one.
func sorted(changes []Change) []Change {
	slices.SortStableFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(rank[a.Rule], rank[b.Rule]), cmp.Compare(a.order, b.order),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.Field, b.Field))
	})
	type same struct {
		level                                        Level
		rule, what, field, before, after, side, path string
		line, column                                 int
	}
	first := map[same]int{}
	kept := changes[:0]
	for _, c := range changes {
		key := same{c.Level, c.Rule, c.What, c.Field, c.Before, c.After, c.Side, c.Path, c.Line, c.Column}
		if i, twice := first[key]; twice && c.Name != kept[i].Name {
			kept[i].Also = append(kept[i].Also, c.Name)
			continue
		}
		first[key] = len(kept)
		kept = append(kept, c)
	}
	return kept
}

// Counts of changes by level.
type Counts struct {
	Danger   int `json:"danger"`
	Caution  int `json:"caution"`
	Notice   int `json:"notice"`
	Harmless int `json:"harmless"`
}

func count(changes []Change) Counts {
	var n [4]int
	for i := range changes {
		n[changes[i].Level]++
	}
	return Counts{n[Danger], n[Caution], n[Notice], n[Harmless]}
}

// String names the levels that there are: 1 danger, 2 cautions, 3 harmless.
func (n Counts) String() string {
	var words []string
	for _, of := range []struct {
		n         int
		one, many string
	}{{n.Danger, "danger", "dangers"}, {n.Caution, "caution", "cautions"}, {n.Notice, "notice", "notices"}, {n.Harmless, "harmless", "harmless"}} {
		switch {
		case of.n == 1:
			words = append(words, "1 "+of.one)
		case of.n > 1:
			words = append(words, fmt.Sprintf("%d %s", of.n, of.many))
		}
	}
	return strings.Join(words, ", ")
}
