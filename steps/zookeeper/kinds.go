package zookeeper

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"runbook/steps"
)

// Kinds lists the kinds of this package.
func Kinds() []*steps.Definition {
	return []*steps.Definition{
		get().Define(),
		set().Define(),
		create().Define(),
		remove().Define(),
	}
}

// own names the step's own target, for the lines of a plan; v is nil offline.
func own(v *steps.View) string {
	if v == nil {
		return ""
	}
	t, err := v.Target("")
	if err != nil {
		return ""
	}
	return t.Name
}

func validPath(path string, unknown func(string) bool) []steps.Problem {
	if why := badPath(path); why != "" && !unknown("path") {
		return []steps.Problem{{Input: "path", Message: fmt.Sprintf("%s: %q", why, path)}}
	}
	return nil
}

// bytesOf gives what a value puts into a node: a text as it is, nothing for none, everything else as JSON on one line.
func bytesOf(value any) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case string:
		return []byte(v), nil
	}
	b, err := json.Marshal(value)
	if err != nil {
		return nil, steps.Errorf("input", "value: %w", err)
	}
	return b, nil
}

// text is what a node holds, null where that is no text.
func text(n Node) *string {
	if !n.Exists || !utf8.Valid(n.Data) {
		return nil
	}
	s := string(n.Data)
	return &s
}

// shown is what a node holds, as a plan shows it.
func shown(n Node) string {
	switch {
	case !n.Exists:
		return "absent"
	case !utf8.Valid(n.Data):
		return fmt.Sprintf("%d bytes", len(n.Data))
	}
	return short(string(n.Data))
}

func short(s string) string {
	const longest = 120
	if r := []rune(s); len(r) > longest {
		return fmt.Sprintf("%q… (%d bytes)", string(r[:longest]), len(s))
	}
	return fmt.Sprintf("%q", s)
}

// before is the node when the step started, for the undo.
type before struct {
	Exists  bool   `json:"exists"`
	Version int    `json:"version"`
	Czxid   int64  `json:"czxid"`
	Data    []byte `json:"data"` // base64 in the journal
}

func beforeOf(n Node) before {
	return before{Exists: n.Exists, Version: n.Version, Czxid: n.Czxid, Data: n.Data}
}

// started gives the node when the step started: as the plan captured it, or as it is now where nothing was captured.
func started(v steps.View, now Node) (before, error) {
	var old before
	known, err := v.Before(&old)
	if !known {
		old = beforeOf(now)
	}
	return old, err
}
