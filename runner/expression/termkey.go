package expression

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// Key is the term as text for digests: terms have the same key if they are equal, and else another one. It
// is not meant to be read; String is.
func (t Term) Key() string { return string(t.node().key(nil)) }

// digest is the hex SHA-256 of a key.
func digest(n *node) string {
	sum := sha256.Sum256(n.key(nil))
	return hex.EncodeToString(sum[:])
}

func (n *node) key(b []byte) []byte {
	switch n.form {
	case formConstant:
		return constantKey(b, n.value)
	case formReference:
		b = append(b, 'r')
		for i, p := range n.path {
			if n.soft&(1<<i) != 0 {
				b = append(b, '?')
			}
			b = strconv.AppendQuote(b, p)
		}
		return b
	}
	b = append(b, '(')
	b = strconv.AppendInt(b, int64(n.form), 10)
	for _, v := range []int{n.level, int(n.relation), int(n.null)} {
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(v), 10)
	}
	b = strconv.AppendQuote(b, n.name)
	if n.form == formIn {
		b = n.set.key(b)
	}
	for _, a := range n.args {
		b = append(b, ' ')
		b = a.key(b)
	}
	return append(b, ')')
}

func (s set) key(b []byte) []byte {
	b = append(b, '{')
	b = strconv.AppendInt(b, int64(s.of), 10)
	b = strconv.AppendBool(b, s.in)
	b = strconv.AppendBool(b, s.rest)
	for _, c := range s.cuts {
		b = append(b, '|')
		if c.after {
			b = append(b, '+')
		}
		b = constantKey(b, c.at)
	}
	return append(b, '}')
}

func constantKey(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 'n')
	case bool:
		return strconv.AppendBool(b, v)
	case int:
		return strconv.AppendInt(append(b, 'i'), int64(v), 10)
	case float64:
		return strconv.AppendFloat(append(b, 'f'), v, 'g', -1, 64)
	case string:
		return strconv.AppendQuote(b, v)
	case time.Duration:
		return strconv.AppendInt(append(b, 'd'), int64(v), 10)
	case []any:
		if slots, ok := asSlots(v); ok {
			return append(append(b, 's'), formatRanges(slots)...)
		}
		b = append(b, '[')
		for i := range v {
			b = append(constantKey(b, v[i]), ',')
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for _, k := range sortedKeys(v) {
			b = append(strconv.AppendQuote(b, k), ':')
			b = append(constantKey(b, v[k]), ',')
		}
		return append(b, '}')
	}
	return append(b, '?')
}
