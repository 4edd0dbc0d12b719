package expression

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Text is how a value prints inside text: numbers, booleans and text as they are, durations as Go writes
// them ("1.5s"), a list of slots as ranges, any other list and maps as compact JSON. A list is one of slots
// if it has only integers from 0 up, each larger than the one before. Null has no text: it is an error.
func Text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", errors.New("null has no text; say what to write instead, such as x ?? \"none\"")
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case time.Duration:
		return v.String(), nil
	case []any:
		if slots, ok := asSlots(v); ok {
			return formatRanges(slots), nil
		}
	}
	return JSON(v)
}

// JSON is v as compact JSON: keys sorted, durations as text.
func JSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(jsonForm(v)); err != nil {
		return "", fmt.Errorf("no JSON for this: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func jsonForm(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return v.String()
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = jsonForm(v[i])
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(v))
		for k := range v {
			m[k] = jsonForm(v[k])
		}
		return m
	}
	return v
}

// asSlots is a list that looks like one of slots.
func asSlots(list []any) ([]int, bool) {
	slots := make([]int, len(list))
	last := -1
	for i := range list {
		n, ok := list[i].(int)
		if !ok || n <= last {
			return nil, false
		}
		slots[i], last = n, n
	}
	return slots, len(slots) > 0
}

// formatRanges writes ascending numbers as "0-3,8".
func formatRanges(slots []int) string {
	var b strings.Builder
	for i := 0; i < len(slots); {
		first := i
		for i++; i < len(slots) && slots[i] == slots[i-1]+1; i++ {
		}
		if first > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(slots[first]))
		if i-1 > first {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(slots[i-1]))
		}
	}
	return b.String()
}

// maxSlots bounds the number of a slot: Pika and Codis have 1024, Redis 16384.
const maxSlots = 1 << 16

// parseRanges reads "0-3,8" as a set: ascending, each once.
func parseRanges(s string) ([]int, error) {
	var slots []int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err := slotNumber(from)
		if err != nil {
			return nil, fmt.Errorf("%q is not a set of slots such as \"0-3,8\": %w", s, err)
		}
		last, err := slotNumber(to)
		if err != nil {
			return nil, fmt.Errorf("%q is not a set of slots such as \"0-3,8\": %w", s, err)
		}
		if last < first {
			return nil, fmt.Errorf("%q is not a set of slots: %d-%d runs backwards", s, first, last)
		}
		if len(slots)+last-first >= maxSlots {
			return nil, fmt.Errorf("%q has more than %d slots", s, maxSlots)
		}
		for n := first; n <= last; n++ {
			slots = append(slots, n)
		}
	}
	return slotSet(slots), nil
}

func slotSet(slots []int) []int {
	slices.Sort(slots)
	return slices.Compact(slots)
}

func slotNumber(s string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	if n >= maxSlots {
		return 0, fmt.Errorf("%d is not below %d", n, maxSlots)
	}
	return int(n), nil
}

// parseDuration is time.ParseDuration with days: "7d", "1d12h".
func parseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration such as \"1.5s\" or \"7d\"", s)
	text, sign := strings.TrimPrefix(s, "+"), time.Duration(1)
	if rest, ok := strings.CutPrefix(text, "-"); ok {
		text, sign = rest, -1
	}
	if strings.ContainsAny(text, "+-") {
		return 0, bad
	}
	var days time.Duration
	if number, rest, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || !(math.Abs(n) < 100_000) {
			return 0, bad
		}
		days, text = time.Duration(n*float64(24*time.Hour)), rest
		if text == "" {
			return sign * days, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d > math.MaxInt64-days {
		return 0, bad
	}
	return sign * (days + d), nil
}

// sizeUnits are Redis's: k, m and g count in thousands, kb, mb and gb in 1024. The IEC names say the same.
var sizeUnits = map[string]float64{
	"": 1, "b": 1,
	"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12,
	"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// parseSize reads "64MB" as bytes.
func parseSize(s string) (int, error) {
	letters := strings.TrimLeft(s, "0123456789.")
	number, unit := s[:len(s)-len(letters)], strings.ToLower(strings.TrimSpace(letters))
	n, err := strconv.ParseFloat(number, 64)
	bytes := n * sizeUnits[unit]
	if err != nil || bytes >= 1<<53 || bytes != math.Trunc(bytes) || sizeUnits[unit] == 0 {
		return 0, fmt.Errorf("%q is not a size such as \"64MB\" or \"512k\"", s)
	}
	return int(bytes), nil
}
