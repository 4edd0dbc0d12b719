// Package page makes one HTML file of a run: what was asked and by whom, a picture of what happened when, what waits saw,
// every command that was sent, who approved what, and whether the journal can be trusted. The page has everything in it
// and needs no script and no network; it is read from the run's records and its frozen plan alone, so a run under way,
// one that crashed and one of last year are told alike.
package page

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"time"

	"runbook/runner"
	"runbook/runner/journal"
)

// Input is what a page is made of.
type Input struct {
	Report  *runner.Report
	Records []journal.Record
	Plan    *runner.Frozen // nil where it cannot be read
	// Verdict says of the journal's chain of hashes what `runs verify` says; Sound that nothing is wrong with it.
	Verdict string
	Sound   bool
}

//go:embed page.html
var layout string

//go:embed page.css
var style string

// Write writes the page.
func Write(w io.Writer, in Input) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"time": clockTime, "length": length, "style": func() template.CSS { return template.CSS(style) },
	}).Parse(layout)
	if err != nil {
		return fmt.Errorf("read the page's layout: %w", err)
	}
	if err := t.Execute(w, newContents(in)); err != nil {
		return fmt.Errorf("write the page of run %s: %w", in.Report.Run, err)
	}
	return nil
}

// contents is what the layout shows.
type contents struct {
	Input
	Description string
	Book        string // path
	Labels      []pair
	Inputs      []pair
	Outputs     []pair
	State       string // how it stands, in a word: the report's status, or running, stopped
	Numbers     []pair
	Story       *story
	Pictures    []picture
	Charts      []chart
	MoreCharts  int
	Steps       []stepRow
	MoreSteps   int
}

type pair struct{ Name, Text string }

// clockTime is a time on the wall, to the second, in UTC as in the journal.
func clockTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// length is a duration as people say it: three digits are enough.
func length(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return d.Round(time.Minute).String()[:len(d.Round(time.Minute).String())-2]
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
