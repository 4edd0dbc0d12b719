package diff

import (
	"strconv"
	"strings"
	"time"

	"runbook/runner"
)

// texts are the values as the author wrote them; where they are written alike, as what they stand for.
func (d *difference) texts() (before, after string) {
	if d.of != nil {
		before = d.o.written(d.of)
	}
	if d.nf != nil {
		after = d.n.written(d.nf)
	}
	if d.of == nil || d.nf == nil || d.of.Hidden || d.nf.Hidden {
		return before, after
	}
	if d.of.Targets || strings.HasSuffix(d.field, "target") {
		return comesTo(before, d.o.targetName(d.of)), comesTo(after, d.n.targetName(d.nf))
	}
	if a, b := d.o.values(d.of), d.n.values(d.nf); a != b && (a != "" || b != "") {
		before, after = comesTo(before, a), comesTo(after, b)
	} else if before == after {
		before, after = d.o.term(d.of, resolved).String(), d.n.term(d.nf, resolved).String()
	}
	return before, after
}

// targetName is what an expression that yields a target comes to, where that is one name.
func (s *site) targetName(f *runner.Fact) string {
	if f.Value.Constant {
		return ""
	}
	name, _ := strings.CutPrefix(s.term(f, resolved).String(), "targets.")
	return name
}

func comesTo(text, value string) string {
	if value == "" || value == text {
		return text
	}
	return text + " = " + value
}

// written is a fact in the author's words.
func (s *site) written(f *runner.Fact) string {
	if f.Hidden && f.Value.Expr == nil { // what stands in it may be a part of the secret
		return "***"
	}
	if f.Value == nil {
		words := make([]string, len(f.All))
		for i, c := range f.All {
			words[i] = oneLine(c.Expr.Source)
		}
		return strings.Join(words, "; ")
	}
	return templateText(f.Value)
}

// templateText is a template as it is written.
func templateText(t *runner.Template) string {
	switch {
	case t.Constant:
		return show(t.Literal)
	case t.Expr != nil:
		return oneLine(t.Expr.Source)
	case t.Cond != nil:
		return oneLine(t.Cond.Expr.Source)
	case t.Parts != nil:
		var b strings.Builder
		for _, p := range t.Parts {
			if p.Expr != nil {
				b.WriteString("${{ " + p.Expr.Source + " }}")
			} else {
				b.WriteString(p.Literal)
			}
		}
		return oneLine(b.String())
	case t.List != nil:
		words := make([]string, len(t.List))
		for i, e := range t.List {
			words[i] = templateText(e)
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	words := make([]string, len(t.Map))
	for i, e := range t.Map {
		words[i] = e.Key + ": " + templateText(e.Value)
	}
	return "{" + strings.Join(words, ", ") + "}"
}

// oneLine is a text without line breaks.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// values is a text for people of what a fact comes to, where its names have known values.
func (s *site) values(f *runner.Fact) string {
	if f.Value == nil || f.Value.Constant || f.Hidden {
		return ""
	}
	v, ok := s.evaluate(f)
	if !ok {
		return ""
	}
	return show(v)
}

// show is a value as people read it, lists of slots as ranges.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "(none)"
	case string:
		if v == "" || strings.TrimSpace(v) != v || strings.ContainsAny(v, "\n\"") {
			return strconv.Quote(v)
		}
		return v
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Duration:
		return shortDuration(v)
	case []any:
		if _, ok := asSlots(v); ok {
			break
		}
		words := make([]string, len(v))
		for i := range v {
			words[i] = show(v[i])
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	return runner.ShowValue(v)
}

// shortDuration writes a duration without zeros at its end: 10m, not 10m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
