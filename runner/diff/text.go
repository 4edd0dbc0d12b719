package diff

import (
	"fmt"
	"io"
	"strings"
)

// WriteText writes changes for a person: what differs, with its level in front, why that
// matters and where it stands. A reader that stops after the dangers has seen the worst.
// paint colours a text by its level; nil: none does.
func WriteText(w io.Writer, changes []Change, paint func(l Level, text string) string) error {
	if paint == nil {
		paint = func(_ Level, text string) string { return text }
	}
	var b strings.Builder
	for i := range changes {
		c := &changes[i]
		fmt.Fprintf(&b, "%s  %s [%s]\n", paint(c.Level, fmt.Sprintf("%-8s", c.Level)), c.line(), c.Rule)
		fmt.Fprintf(&b, "          %s\n", c.Reason)
		if len(c.Also) > 0 {
			fmt.Fprintf(&b, "          also %s\n", strings.Join(c.Also, ", "))
		}
		fmt.Fprintf(&b, "          %s\n", c.where())
	}
	if len(changes) > 0 {
		fmt.Fprintf(&b, "%s\n", count(changes))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Change) where() string {
	text := fmt.Sprintf("%s:%d:%d", c.Path, c.Line, c.Column)
	if c.Side == "old" {
		text += " (before)"
	}
	return text
}

// Report is the answer of `diff --output json`. Names of fields stay.
type Report struct {
	Old     string   `json:"old"`
	New     string   `json:"new"`
	Counts  Counts   `json:"counts"`
	Changes []Change `json:"changes"`
}

// NewReport makes the report of a comparison; old and new are the runbooks as they were named.
func NewReport(old, new string, changes []Change) Report {
	if changes == nil {
		changes = []Change{}
	}
	return Report{old, new, count(changes), changes}
}
