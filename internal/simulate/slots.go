package simulate

import (
	"fmt"
	"hash/crc32"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// parseSlots reads a set of slots, such as 1,5-7, of a cluster that has num of them. What a world file says without quotes may be
// a number.
func parseSlots(said any, num int) ([]int, error) {
	text, ok := said.(string)
	if !ok {
		if n, isInt := said.(int64); isInt {
			said = int(n)
		}
		if _, isInt := said.(int); !isInt {
			return nil, fmt.Errorf("%v: slots such as 1,5-7 are wanted", said)
		}
		text = fmt.Sprint(said)
	}
	var slots []int
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		switch {
		case err != nil || err2 != nil || from > to:
			return nil, fmt.Errorf("%q: slots such as 1,5-7 are wanted", text)
		case to >= num:
			return nil, fmt.Errorf("%q: there are %d slots, 0-%d", text, num, num-1)
		}
		for i := from; i <= to; i++ {
			slots = append(slots, i)
		}
	}
	slices.Sort(slots)
	return slices.Compact(slots), nil
}

// slotOwners reads a map from slots to what they belong to.
func slotOwners[T any](said any, num int, read func(any) (T, error)) (map[int]T, error) {
	owners := map[int]T{}
	if said == nil {
		return owners, nil
	}
	given, ok := said.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("slots %v: a map such as {0-511: 1} is wanted", said)
	}
	for _, text := range slices.Sorted(maps.Keys(given)) {
		slots, err := parseSlots(text, num)
		if err != nil {
			return nil, fmt.Errorf("slots: %w", err)
		}
		owner, err := read(given[text])
		if err != nil {
			return nil, fmt.Errorf("slots %s: %w", text, err)
		}
		for _, id := range slots {
			if _, twice := owners[id]; twice {
				return nil, fmt.Errorf("slots: %d is given twice", id)
			}
			owners[id] = owner
		}
	}
	return owners, nil
}

// ranges writes slots as people do: 1,5-7.
func ranges(slots []int) string {
	var parts []string
	for i := 0; i < len(slots); {
		j := i
		for j+1 < len(slots) && slots[j+1] == slots[j]+1 {
			j++
		}
		part := strconv.Itoa(slots[i])
		if j > i {
			part += "-" + strconv.Itoa(slots[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// slotOf is the slot of a key without a hash tag.
func slotOf(key string, num int) int { return int(crc32.ChecksumIEEE([]byte(key)) % uint32(num)) }

// hashTags gives a tag for each slot.
func hashTags(slots []int, num int) []string {
	found := map[int]string{}
	for i := 0; len(found) < len(slots); i++ {
		tag := strconv.Itoa(i)
		id := slotOf(tag, num)
		if _, wanted := slices.BinarySearch(slots, id); wanted && found[id] == "" {
			found[id] = tag
		}
	}
	tags := make([]string, len(slots))
	for i, id := range slots {
		tags[i] = found[id]
	}
	return tags
}

const slotNum = 1024

// slotNum is how many slots a system has, as its clients see it.
func (w *World) slotNum(name string) int {
	s := w.spec.Systems[name]
	switch {
	case s.Kind == "codis" || s.SlotNum == 0:
		return slotNum
	default:
		return s.SlotNum
	}
}

// foreign names a field that is set and not among those that a kind has.
func foreign(s System, fields []string) string {
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		if name != "kind" && !v.Field(i).IsZero() && !slices.Contains(fields, name) {
			return name
		}
	}
	return ""
}
