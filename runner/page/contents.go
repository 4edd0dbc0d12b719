package page

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"runbook/runner"
	"runbook/schema"
)

const (
	mostSteps = 5000 // of the table
	mostTold  = 1500 // steps with their commands, outputs and errors; those that changed something or failed come first
	mostText  = 4000 // characters of one text
)

// stepRow is a step in the table.
type stepRow struct {
	*runner.ReportStep
	Depth   int
	Name    string
	Offset  string // since the run began
	Told    bool   // its details are there
	Sent    []string
	Given   []pair // outputs
	Looks   string
	Because string
}

func newContents(in Input) *contents {
	r := in.Report
	c := &contents{Input: in, Story: tell(in.Records), Outputs: pairs(r.Outputs), State: state(r)}
	c.about()
	c.Pictures = pictures(c.Story, r)
	c.Charts, c.MoreCharts = charts(c.Story)
	c.Numbers = numbers(c.Story, r)
	c.steps()
	return c
}

// state is how the run stands, in a word.
func state(r *runner.Report) string {
	if r.Status != "" {
		return string(r.Status)
	}
	if slices.ContainsFunc(r.Steps, func(s *runner.ReportStep) bool {
		return s.Status == runner.StepInDoubt || s.Status == "unfinished" || s.Status == "stopped"
	}) {
		return "killed"
	}
	return "running"
}

// about reads what the journal does not have from the plan: what the runbook says of itself.
func (c *contents) about() {
	c.Inputs = pairs(c.Report.Inputs)
	if c.Plan == nil || len(c.Plan.Sources) == 0 {
		return
	}
	source := c.Plan.Sources[0]
	c.Book = filepath.Join(c.Plan.Dir, source.Path)
	if filepath.IsAbs(source.Path) {
		c.Book = source.Path
	}
	book, _ := schema.Parse(source.Path, []byte(source.Text)) // it was run, so it parses
	if book == nil {
		return
	}
	c.Description = strings.TrimSpace(book.Description.Value)
	for _, l := range book.Labels {
		c.Labels = append(c.Labels, pair{l.Key.Value, l.Value.Value})
	}
	for _, in := range book.Inputs {
		at := slices.IndexFunc(c.Inputs, func(p pair) bool { return p.Name == in.Key.Value })
		var slots schema.Slots
		if at >= 0 && in.Value.Type.Value == "slots" && json.Unmarshal([]byte(c.Inputs[at].Text), (*[]int)(&slots)) == nil {
			c.Inputs[at].Text = slots.String()
		}
	}
}

func pairs(values map[string]any) []pair {
	var list []pair
	for _, name := range slices.Sorted(maps.Keys(values)) {
		list = append(list, pair{name, short(runner.ShowValue(values[name]))})
	}
	return list
}

func short(text string) string {
	if r := []rune(text); len(r) > mostText {
		return string(r[:mostText]) + fmt.Sprintf("… (%d characters)", len(r))
	}
	return text
}

// numbers are what a reader wants to know first.
func numbers(s *story, r *runner.Report) []pair {
	counts := map[string]int{}
	longest, where := time.Duration(0), ""
	retries := 0
	for _, w := range s.Rows {
		retries += len(w.Marks)
	}
	for _, step := range r.Steps {
		if step.Group {
			continue
		}
		if step.Status == "changed" || step.Status == "failed" || step.Undo == "undone" {
			counts[step.Effect]++
		}
		var out struct {
			Pause string `json:"pause"`
		}
		if step.Effect == "cutover" && json.Unmarshal(step.Outputs, &out) == nil {
			if d, err := schema.ParseDuration(out.Pause); err == nil && d > longest {
				longest, where = d, step.Path
			}
		}
	}
	var active time.Duration
	for _, p := range s.Processes {
		active += p.Ended.Sub(p.Began)
	}
	list := []pair{{"steps", r.CountText()}, {"took", length(r.Last.Sub(r.Started))}}
	if len(s.Processes) > 1 {
		list = append(list, pair{"of it running", fmt.Sprintf("%s, in %d processes", length(active), len(s.Processes))})
	}
	for _, e := range []string{"write", "cutover", "destroy"} {
		if counts[e] > 0 {
			list = append(list, pair{e + " steps that acted", fmt.Sprint(counts[e])})
		}
	}
	if longest > 0 {
		list = append(list, pair{"longest pause of clients", length(longest) + ", in " + where})
	}
	if retries > 0 {
		list = append(list, pair{"retries", fmt.Sprint(retries)})
	}
	return list
}

func (c *contents) steps() {
	told := 0
	tells := func(s *runner.ReportStep) bool {
		return s.Error != nil || s.Status == "changed" || s.Undo != "" || s.Decision != ""
	}
	for _, s := range c.Report.Steps {
		if tells(s) {
			told++
		}
	}
	spare := mostTold - told
	for i, s := range c.Report.Steps {
		if i == mostSteps {
			c.MoreSteps = len(c.Report.Steps) - i
			return
		}
		depth, name := nesting(s.Path)
		row := stepRow{ReportStep: s, Depth: depth, Name: name}
		if s.Started != nil {
			row.Offset = "+" + length(s.Started.Sub(c.Report.Started))
		}
		switch {
		case tells(s):
			row.Told = told <= mostTold || i < mostTold
		case spare > 0:
			row.Told = true
			spare--
		}
		if row.Told {
			row.details()
		}
		c.Steps = append(c.Steps, row)
	}
}

func (s *stepRow) details() {
	for _, command := range s.Commands {
		s.Sent = append(s.Sent, short(command))
	}
	var outputs map[string]any
	if json.Unmarshal(s.Outputs, &outputs) == nil {
		s.Given = pairs(outputs)
	}
	if s.Observed != nil {
		s.Looks = s.Observed.Words()
	}
	s.Told = len(s.Sent)+len(s.Given)+len(s.Warnings) > 0 || s.Looks != "" || s.Error != nil || s.Reason != "" || s.Waiting != "" || s.Decision != "" || s.Undo != ""
}
