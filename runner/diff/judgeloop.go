package diff

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"runbook/runner"
	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// slots judges a set of slots.
func (d *difference) slots() verdict {
	read := func(s *site, f *runner.Fact) (schema.Slots, bool) {
		if f == nil {
			return nil, true
		}
		v, ok := s.evaluate(f)
		if !ok {
			return nil, false
		}
		return asSlots(v)
	}
	was, okA := read(d.o, d.of)
	is, okB := read(d.n, d.nf)
	if !okA || !okB || d.open() {
		return verdict{rule: "other-slots", note: "which ones cannot be told before a run"}
	}
	v := verdict{rule: "other-slots"}
	added, gone := minus(is, was), minus(was, is)
	switch {
	case len(added) == 0 && len(gone) == 0:
		return verdict{}
	case len(gone) == 0:
		v.rule = "more-slots"
	case len(added) == 0:
		v.rule = "fewer-slots"
	}
	v.note = slotWords(added, gone)
	v.before, v.after = d.texts()
	if d.of != nil && d.of.Value.Constant {
		v.before = was.String()
	}
	if d.nf != nil && d.nf.Value.Constant {
		v.after = is.String()
	}
	return v
}

func slotWords(added, gone schema.Slots) string {
	var words []string
	for _, part := range []struct {
		word  string
		slots schema.Slots
	}{{"added", added}, {"removed", gone}} {
		if n := len(part.slots); n > 0 {
			plural := "s"
			if n == 1 {
				plural = ""
			}
			words = append(words, fmt.Sprintf("%s %s (%d slot%s)", part.word, part.slots, n, plural))
		}
	}
	return strings.Join(words, ", ")
}

// asSlots reads a value as a set of slots.
func asSlots(v any) (schema.Slots, bool) {
	var into struct {
		Slots schema.Slots `yaml:"slots"`
	}
	if v == nil || schema.Bind(map[string]any{"slots": v}, &into) != nil {
		return nil, false
	}
	return into.Slots, true
}

// minus are the slots of a that b has not; both are ascending.
func minus(a, b schema.Slots) schema.Slots {
	var rest schema.Slots
	for _, slot := range a {
		if _, found := slices.BinarySearch(b, slot); !found {
			rest = append(rest, slot)
		}
	}
	return rest
}

// items judges what a loop runs over.
func (d *difference) items() verdict {
	if d.of == nil {
		return verdict{rule: "more-items", note: "it was done once"}
	}
	if d.nf == nil {
		return verdict{rule: "fewer-items", note: "it is done once"}
	}
	a, okA := d.o.evaluate(d.of)
	b, okB := d.n.evaluate(d.nf)
	olds, isListA := itemsOf(a)
	news, isListB := itemsOf(b)
	if !okA || !okB || !isListA || !isListB || d.open() {
		return verdict{rule: "other-items", note: "which ones cannot be told before a run"}
	}
	added, gone := without(news, olds), without(olds, news)
	v := verdict{rule: "other-items", note: changedNames(added, gone)}
	switch {
	case len(added) == 0 && len(gone) == 0:
		v.rule, v.note = "other-loop", "the same items in another order, or more than once"
	case len(gone) == 0:
		v.rule = "more-items"
	case len(added) == 0:
		v.rule = "fewer-items"
	}
	return v
}

// itemsOf are the items of a list, map or slot set, by what they are.
func itemsOf(v any) (map[string]string, bool) {
	all := map[string]string{}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			all[expression.Constant(e).Key()] = show(e)
		}
		return all, true
	case map[string]any:
		for k, e := range v {
			all[k+" "+expression.Constant(e).Key()] = k
		}
		return all, true
	case string:
		if slots, ok := asSlots(v); ok {
			for _, n := range slots {
				all[fmt.Sprint(n)] = fmt.Sprint(n)
			}
			return all, true
		}
	}
	return nil, false
}

// without are the words of those in a that b has not, in order.
func without(a, b map[string]string) []string {
	var rest []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if _, both := b[k]; !both {
			rest = append(rest, a[k])
		}
	}
	return rest
}

// mostNames is how many names a reason lists.
const mostNames = 6

func changedNames(added, gone []string) string {
	var words []string
	for _, part := range []struct {
		word  string
		names []string
	}{{"added", added}, {"removed", gone}} {
		if n := len(part.names); n > mostNames {
			words = append(words, fmt.Sprintf("%s %s and %d more", part.word, strings.Join(part.names[:mostNames], ", "), n-mostNames))
		} else if n > 0 {
			words = append(words, part.word+" "+strings.Join(part.names, ", "))
		}
	}
	return strings.Join(words, "; ")
}

// batch judges the sizes of waves: which ones are larger is told by waves over a hundred items.
func (d *difference) batch() verdict {
	sizes := func(s *site, f *runner.Fact) ([]float64, bool) {
		if f == nil {
			return []float64{100}, true // one wave
		}
		v, ok := s.evaluate(f)
		if !ok {
			return nil, false
		}
		list, isList := v.([]any)
		if !isList {
			list = []any{v}
		}
		var all []float64
		for _, e := range list {
			switch e := e.(type) {
			case int:
				all = append(all, float64(e))
			case string:
				var n float64
				if _, err := fmt.Sscanf(e, "%f%%", &n); err != nil {
					return nil, false
				}
				all = append(all, n)
			default:
				return nil, false
			}
		}
		return all, len(all) > 0
	}
	a, okA := sizes(d.o, d.of)
	b, okB := sizes(d.n, d.nf)
	if !okA || !okB || d.open() {
		return verdict{rule: "larger-batch", note: "which way cannot be told before a run"}
	}
	for i := range max(len(a), len(b)) {
		if b[min(i, len(b)-1)] > a[min(i, len(a)-1)] {
			return verdict{rule: "larger-batch"}
		}
	}
	return verdict{rule: "smaller-batch"}
}

// pauses tells whether an input of a kind is the time for which clients may wait: what the
// kind's plan declares as its pause follows it.
func (c *comparison) pauses(k *steps.Definition, input string) bool {
	if k.Effect < steps.Cutover || !k.HasPlan {
		return false
	}
	key := k.Name + " " + input
	if known, ok := c.pause[key]; ok {
		return known
	}
	declared := func(d time.Duration) (pause string) {
		defer func() {
			if recover() != nil { // a kind that cannot plan without its other inputs
				pause = ""
			}
		}()
		in := reflect.New(k.In)
		for i := range k.In.NumField() {
			if tag, _, _ := strings.Cut(k.In.Field(i).Tag.Get("yaml"), ","); tag == input {
				in.Elem().Field(i).SetInt(int64(d))
			}
		}
		change, err := k.Plan(context.Background(), nil, in.Interface())
		if err != nil {
			return ""
		}
		return change.Pause
	}
	const one, two = 1237 * time.Second, 4391 * time.Second
	is := strings.Contains(declared(one), one.String()) && strings.Contains(declared(two), two.String())
	if c.pause == nil {
		c.pause = map[string]bool{}
	}
	c.pause[key] = is
	return is
}
