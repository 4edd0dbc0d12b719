package redis

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Settings as CONFIG GET prints them and as people write them differ; same tells whether
// they mean the same:
//
//   - true and yes, false and no;
//   - sizes, 64mb and 67108864 (k, m, g are powers of 1000, kb, mb, gb of 1024, as in redis.conf);
//   - numbers, 1 and 1.0;
//   - lists of words, whatever the space between them;
//   - notify-keyspace-events, whatever the order of its letters, A for all of them;
//   - client-output-buffer-limit, of the classes that are written, slave and replica being one word.

// same tells whether a setting's two values mean the same.
func same(name, a, b string) bool {
	a, b = strings.Join(strings.Fields(a), " "), strings.Join(strings.Fields(b), " ")
	if a == b {
		return true
	}
	switch strings.ToLower(name) {
	case "requirepass", "masterauth":
		return false
	case "notify-keyspace-events":
		return eventLetters(a) == eventLetters(b)
	case "client-output-buffer-limit":
		return sameLimits(a, b)
	}
	if truth(a) != "" && truth(a) == truth(b) {
		return true
	}
	wa, wb := strings.Fields(a), strings.Fields(b)
	if len(wa) != len(wb) || len(wa) == 0 {
		return false
	}
	for i := range wa {
		if !sameWord(wa[i], wb[i]) {
			return false
		}
	}
	return true
}

func sameWord(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	x, okX := size(a)
	y, okY := size(b)
	if okX && okY {
		return x == y
	}
	f, errF := strconv.ParseFloat(a, 64)
	g, errG := strconv.ParseFloat(b, 64)
	return errF == nil && errG == nil && f == g
}

func truth(s string) string {
	switch strings.ToLower(s) {
	case "yes", "true":
		return "yes"
	case "no", "false":
		return "no"
	}
	return ""
}

// size reads a memory size of redis.conf, in bytes.
func size(s string) (int64, bool) {
	digits := strings.TrimRight(strings.ToLower(s), "bkmgt")
	unit, ok := map[string]int64{
		"": 1, "b": 1, "k": 1e3, "kb": 1 << 10, "m": 1e6, "mb": 1 << 20, "g": 1e9, "gb": 1 << 30, "t": 1e12, "tb": 1 << 40,
	}[strings.ToLower(s)[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	return n * unit, ok && err == nil
}

func eventLetters(s string) string {
	s = strings.ReplaceAll(s, "A", "g$lshzxetd")
	letters := []byte(s)
	slices.Sort(letters)
	return string(slices.Compact(letters))
}

// sameLimits: CONFIG SET may name some classes, CONFIG GET prints all.
func sameLimits(a, b string) bool {
	x, y := limits(a), limits(b)
	if x == nil || y == nil {
		return false
	}
	if len(x) > len(y) {
		x, y = y, x
	}
	for class, want := range x {
		if got, ok := y[class]; !ok || got != want {
			return false
		}
	}
	return true
}

func limits(s string) map[string][3]int64 {
	words := strings.Fields(s)
	if len(words) == 0 || len(words)%4 != 0 {
		return nil
	}
	m := map[string][3]int64{}
	for i := 0; i < len(words); i += 4 {
		class := strings.ToLower(words[i])
		if class == "replica" {
			class = "slave"
		}
		var v [3]int64
		for j := range v {
			n, ok := size(words[i+1+j])
			if !ok {
				return nil
			}
			v[j] = n
		}
		m[class] = v
	}
	return m
}

// setting asks for one setting; false where the server knows none of this name.
func (c *Client) setting(ctx context.Context, name string) (string, bool, error) {
	r, err := c.Do(ctx, "CONFIG", "GET", name)
	if err != nil {
		return "", false, err
	}
	m, err := r.Pairs()
	if err != nil {
		return "", false, err
	}
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return v, true, nil
		}
	}
	return "", false, nil
}

// shown is a setting's value as people may see it.
func shown(name, value string) string {
	if IsSecretSetting(name) && value != "" {
		return masked
	}
	return value
}

func upper(s string) string { return strings.ToUpper(s) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
