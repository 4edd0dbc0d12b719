// Package core has the step kinds of one word, which belong to no system: exec and http
// as ways out for what no kind knows yet, check, set, sleep, approve, notify and
// stop-background.
//
// Four of them (set, sleep, approve, stop-background) are carried out by the engine
// itself; here stand their inputs and their reference. exec, http and notify act through
// [host.Machine], so that they work from another computer, and so that a simulated
// world can answer them.
package core

import (
	"encoding/json"
	"fmt"
	"strings"

	"runbook/steps"
)

// Kinds lists the kinds of this package.
func Kinds() []*steps.Definition {
	return []*steps.Definition{
		exec().Define(),
		httpKind().Define(),
		check().Define(),
		set().Define(),
		sleep().Define(),
		approve().Define(),
		notify().Define(),
		stopBackground().Define(),
	}
}

// targetName is how a plan names the step's target; empty for none, and offline.
func targetName(v *steps.View) string {
	if v == nil {
		return ""
	}
	if t, err := v.Target(""); err == nil {
		return t.Name
	}
	return ""
}

// shown prints a value on one line, cut where it is long.
func shown(v any) string {
	text, ok := v.(string)
	if s, is := v.(fmt.Stringer); is {
		text, ok = s.String(), true
	}
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		text = string(b)
	}
	return clip(text, 200)
}

// clip cuts a text to at most n runes.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// lastLines gives the last lines that are not empty, on one line.
func lastLines(text string, n int) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, clip(line, 300))
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
