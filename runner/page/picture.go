package page

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"runbook/runner"
)

const (
	plotWidth  = 640.0 // of the time axis, in the picture's own units
	nameWidth  = 300.0
	rowHeight  = 17.0
	rowsAPiece = 45  // of one picture, so that a printed page holds it
	mostRows   = 600 // of all pictures
)

// picture is a piece of the time line.
type picture struct {
	Title         string
	Width, Height float64
	Rows          []drawnRow
	Ticks         []tick
	Bands         []band // where no process lived
	Axis          float64
}

type band struct{ X, Width float64 }

type drawnRow struct {
	Y    float64
	Name string
	Indent,
	NameX float64
	Class string // of the whole row: the step's status
	Group bool
	Bars  []drawnBar
	Marks []drawnMark
	Title string
}

type drawnBar struct {
	X, Width float64
	Class    string
	Title    string
}

type drawnMark struct {
	X     float64
	Class string
	Title string
}

// pictures draws the rows: those of a loop's items as one, where there are too many.
func pictures(s *story, r *runner.Report) []picture {
	if len(s.Processes) == 0 {
		return nil
	}
	rows := s.Rows
	if len(rows) > mostRows {
		rows = folded(rows)
	}
	more := max(0, len(rows)-mostRows)
	rows = rows[:len(rows)-more]
	a := newAxis(s.Processes, plotWidth)
	start := s.Processes[0].Began
	var list []picture
	for chunk := range slices.Chunk(rows, rowsAPiece) {
		p := picture{Width: nameWidth + plotWidth + 10, Height: rowHeight*float64(len(chunk)) + 26, Axis: nameWidth, Ticks: a.ticks(start)}
		p.Title = fmt.Sprintf("Steps %s to %s on a time axis", chunk[0].Path, chunk[len(chunk)-1].Path)
		for _, b := range a.pieces {
			if b.idle {
				p.Bands = append(p.Bands, band{b.at, b.width})
			}
		}
		for i, w := range chunk {
			p.Rows = append(p.Rows, draw(w, r.Find(w.Path), a, start, 20+rowHeight*float64(i)))
		}
		list = append(list, p)
	}
	if more > 0 {
		list[len(list)-1].Title += fmt.Sprintf("; %d more are in the table", more)
	}
	return list
}

func draw(w *row, s *runner.ReportStep, a *axis, start time.Time, y float64) drawnRow {
	depth, name := nesting(w.Path)
	d := drawnRow{Y: y, Indent: 10 * float64(min(depth, 8)), Name: name, Title: w.Path}
	d.NameX = d.Indent + 2
	if most := int((nameWidth - d.NameX) / 6.2); len([]rune(d.Name)) > most {
		d.Name = string([]rune(d.Name)[:most-1]) + "…"
	}
	effect := "read"
	if s != nil {
		d.Class, d.Group = s.Status, s.Group
		if s.Undo == "undone" {
			d.Class = s.Undo
		}
		if s.Effect != "" {
			effect = s.Effect
		}
		d.Title += ": " + d.Class
		if s.Error != nil {
			d.Title += ", " + s.Error.Message
		}
	}
	for _, b := range w.Bars {
		x, till := a.place(b.From), a.place(b.Till)
		class := b.Class
		if class == "runs" {
			class += " " + effect
			if d.Group {
				class = "group"
			}
		}
		if b.Cut {
			class += " cut"
		}
		d.Bars = append(d.Bars, drawnBar{x, max(till-x, 2.5), class, fmt.Sprintf("%s %s from %s, %s", w.Path, b.Class, "+"+length(b.From.Sub(start)), length(b.Till.Sub(b.From)))})
	}
	for _, m := range w.Marks {
		d.Marks = append(d.Marks, drawnMark{a.place(m.At), m.Word, m.Word + " at +" + length(m.At.Sub(start))})
	}
	return d
}

// nesting is how deep a path lies, and its last element.
func nesting(path string) (depth int, name string) {
	name = path
	for i, inside := 0, 0; i < len(path); i++ {
		switch path[i] {
		case '[':
			inside++
		case ']':
			inside--
		case '/':
			if inside == 0 {
				depth, name = depth+1, path[i+1:]
			}
		}
	}
	return depth, name
}

// folded puts the rows that differ in their items alone into one.
func folded(rows []*row) []*row {
	var list []*row
	by := map[string]*row{}
	for _, r := range rows {
		path := withoutItems(r.Path)
		f := by[path]
		if f == nil {
			f = &row{Path: path}
			by[path] = f
			list = append(list, f)
		}
		f.Bars, f.Marks = append(f.Bars, r.Bars...), append(f.Marks, r.Marks...)
	}
	for _, f := range list {
		f.Bars = merged(f.Bars)
		f.Marks = f.Marks[:min(len(f.Marks), 50)]
	}
	return list
}

// merged makes one bar of bars of a class that overlap or nearly touch: a thousand of them would only be a blot.
func merged(bars []bar) []bar {
	slices.SortStableFunc(bars, func(a, b bar) int {
		if c := strings.Compare(a.Class, b.Class); c != 0 {
			return c
		}
		return a.From.Compare(b.From)
	})
	var list []bar
	for _, b := range bars {
		if n := len(list); n > 0 && list[n-1].Class == b.Class && b.From.Sub(list[n-1].Till) < list[n-1].Till.Sub(list[n-1].From) {
			if b.Till.After(list[n-1].Till) {
				list[n-1].Till = b.Till
			}
			continue
		}
		list = append(list, b)
	}
	return list
}

func withoutItems(path string) string {
	var b strings.Builder
	inside := 0
	for _, c := range path {
		switch {
		case c == '[':
			if inside == 0 {
				b.WriteString("[…]")
			}
			inside++
		case c == ']':
			inside--
		case inside == 0:
			b.WriteRune(c)
		}
	}
	return b.String()
}
