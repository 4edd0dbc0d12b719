package schema

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// UnitError says why a text is no duration, size or slot set.
type UnitError struct {
	Text, Wanted, Problem string
	Suggestion            string // what was probably meant, if that can be told
}

func (e *UnitError) Error() string {
	return fmt.Sprintf("%q is not %s: %s", e.Text, e.Wanted, e.Problem)
}

// ParseDuration reads Go's syntax (1h30m, 500ms) with days (7d, 1d12h) added. A day
// has 24 hours. A number without a unit is refused: nobody can tell what it counts.
func ParseDuration(text string) (time.Duration, error) {
	fail := func(problem, suggestion string) (time.Duration, error) {
		return 0, &UnitError{text, "a duration", problem, suggestion}
	}
	rest := strings.TrimLeft(text, "+-")
	negative := strings.HasPrefix(text, "-")
	if len(text)-len(rest) > 1 || rest == "" {
		return fail("write a number and a unit, such as 500ms, 30s, 10m, 2h or 7d", "")
	}
	if strings.Trim(rest, "0123456789.") == "" {
		if rest == "0" {
			return 0, nil
		}
		return fail("the unit is missing", text+"s")
	}
	var days time.Duration
	if number, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || strings.Trim(number, "0123456789.") != "" {
			return fail("write a number and a unit, such as 500ms, 30s, 10m, 2h or 7d", "")
		}
		if n > float64(math.MaxInt64/(24*time.Hour)) {
			return fail("too long", "")
		}
		if days, rest = time.Duration(n*float64(24*time.Hour)), after; rest == "" {
			rest = "0s"
		}
	}
	if rest[0] == '-' || rest[0] == '+' {
		return fail("write a number and a unit, such as 500ms, 30s, 10m, 2h or 7d", "")
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d > math.MaxInt64-days {
		return fail("write a number and a unit, such as 500ms, 30s, 10m, 2h or 7d", "")
	}
	if d += days; negative {
		d = -d
	}
	return d, nil
}

// sizes are the units of Redis' configuration file (k is 1000, kb 1024), and tb.
var sizes = map[string]int64{
	"": 1, "b": 1, "k": 1000, "kb": 1 << 10, "m": 1000 * 1000, "mb": 1 << 20,
	"g": 1000 * 1000 * 1000, "gb": 1 << 30, "t": 1000 * 1000 * 1000 * 1000, "tb": 1 << 40,
}

// ParseSize reads a number of bytes with the units of Redis' configuration file:
// 64mb is 64·1024·1024, 64m is 64·1000·1000; upper and lower case are the same.
func ParseSize(text string) (Size, error) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	factor, known := sizes[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || !known {
		return 0, &UnitError{Text: text, Wanted: "a size", Problem: "write a whole number and a unit of b, k, kb, m, mb, g, gb, t or tb, such as 64mb"}
	}
	if n > math.MaxInt64/factor {
		return 0, &UnitError{Text: text, Wanted: "a size", Problem: "too large"}
	}
	return Size(n * factor), nil
}

// maxSlot bounds slot numbers, so that a slip of the finger (0-10240000) is an
// error and not a list that fills the memory. Pika and Codis have 1024, Redis 16384.
const maxSlot = 65535

// ParseSlots reads slots and ranges of them, such as 0-3,8. The result is
// ascending, and a slot named twice is there once.
func ParseSlots(text string) (Slots, error) {
	fail := func(problem string) (Slots, error) {
		return nil, &UnitError{Text: text, Wanted: "a set of slots", Problem: problem}
	}
	var slots Slots
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, err := slot(first)
		if err != nil {
			return fail("write slots and ranges, such as 0-3,8")
		}
		to, err := slot(last)
		switch {
		case err != nil:
			return fail("write slots and ranges, such as 0-3,8")
		case to > maxSlot:
			return fail(fmt.Sprintf("a slot is at most %d", maxSlot))
		case to < from:
			return fail(fmt.Sprintf("the range %s ends before it begins", part))
		case len(slots)+to-from > 4*maxSlot:
			return fail("it names more slots than there are")
		}
		for n := from; n <= to; n++ {
			slots = append(slots, n)
		}
	}
	return normal(slots), nil
}

func slot(text string) (int, error) {
	text = strings.TrimSpace(text)
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(text)
}

// slotsOf checks numbers given one by one.
func slotsOf(numbers []int) (Slots, error) {
	for _, n := range numbers {
		if n < 0 || n > maxSlot {
			return nil, &UnitError{Text: strconv.Itoa(n), Wanted: "a slot", Problem: fmt.Sprintf("slots are 0 to %d", maxSlot)}
		}
	}
	return normal(slices.Clone(numbers)), nil
}

func normal(slots Slots) Slots {
	slices.Sort(slots)
	return slices.Compact(slots)
}

// String gives the slots as ranges, such as 0-3,8; ParseSlots reads it back.
func (s Slots) String() string {
	sorted := s
	if !slices.IsSorted(sorted) {
		sorted = normal(slices.Clone(sorted))
	}
	var b strings.Builder
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] <= sorted[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(sorted[i]))
		if sorted[j] > sorted[i] {
			b.WriteString("-" + strconv.Itoa(sorted[j]))
		}
		i = j + 1
	}
	return b.String()
}
