package expression

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

var (
	errOverflow = errors.New("the number does not fit in 64 bits")
	errZero     = errors.New("division by zero")
)

// arithmeticType is the type that an operator makes of two operands, nil if it does not take them.
func arithmeticType(op string, l, r *Type) *Type {
	known, other := l, r
	if l.Kind == Any {
		known, other = r, l
	}
	switch {
	case op == "..":
		if l.is(Int, Any) && r.is(Int, Any) {
			return listOf(intType)
		}
	case op == "%":
		if l.is(Int, Any) && r.is(Int, Any) {
			return intType
		}
	case op == "**" || op == "^":
		if l.is(Int, Float, Any) && r.is(Int, Float, Any) {
			return floatType
		}
	case other.Kind == Any:
		if known.is(Int, Float, Duration, Any) {
			return anyType
		}
		if known.Kind == String && op == "+" {
			return stringType
		}
	case l.number() && r.number():
		if op == "/" || l.Kind == Float || r.Kind == Float {
			return floatType
		}
		return intType
	case l.Kind == Duration && r.Kind == Duration:
		if op == "/" {
			return floatType
		}
		if op != "*" {
			return durationType
		}
	case l.Kind == Duration && r.number() && op != "+" && op != "-",
		l.number() && r.Kind == Duration && op == "*":
		return durationType
	case l.Kind == String && r.Kind == String && op == "+":
		return stringType
	}
	return nil
}

// arithmetic applies an operator. Integers do not wrap around: a count that did would pass a check.
func arithmetic(f *frame, op string, a, b any) (any, error) {
	switch a := a.(type) {
	case int:
		switch b := b.(type) {
		case int:
			return integers(f, op, a, b)
		case float64:
			return floats(op, float64(a), b)
		case time.Duration:
			if op == "*" {
				return integersAs[time.Duration](f, op, a, int(b))
			}
		}
	case float64:
		switch b := b.(type) {
		case int:
			return floats(op, a, float64(b))
		case float64:
			return floats(op, a, b)
		case time.Duration:
			if op == "*" {
				return durationOf(a * float64(b))
			}
		}
	case time.Duration:
		switch b := b.(type) {
		case time.Duration:
			switch op {
			case "/":
				return floats(op, float64(a), float64(b))
			case "+", "-":
				return integersAs[time.Duration](f, op, int(a), int(b))
			}
		case int:
			switch op {
			case "*":
				return integersAs[time.Duration](f, op, int(a), b)
			case "/":
				if b == 0 {
					return nil, errZero
				}
				return a / time.Duration(b), nil
			}
		case float64:
			switch {
			case op == "*":
				return durationOf(float64(a) * b)
			case op == "/" && b == 0:
				return nil, errZero
			case op == "/":
				return durationOf(float64(a) / b)
			}
		}
	case string:
		if b, ok := b.(string); ok && op == "+" {
			f.reserve(len(a) + len(b))
			return a + b, nil
		}
	}
	return nil, fmt.Errorf("`%s` does not take %s and %s", op, kindOf(a), kindOf(b))
}

func integersAs[T ~int64](f *frame, op string, a, b int) (any, error) {
	v, err := integers(f, op, a, b)
	if err != nil {
		return nil, err
	}
	return T(v.(int)), nil
}

func integers(f *frame, op string, a, b int) (any, error) {
	switch op {
	case "+":
		if c := a + b; (c > a) == (b > 0) {
			return c, nil
		}
		return nil, errOverflow
	case "-":
		if c := a - b; (c < a) == (b > 0) {
			return c, nil
		}
		return nil, errOverflow
	case "*":
		if a == 0 || b == 0 {
			return 0, nil
		}
		if c := a * b; c/b == a && !(a == -1 && b == math.MinInt) && !(b == -1 && a == math.MinInt) {
			return c, nil
		}
		return nil, errOverflow
	case "%":
		if b == 0 {
			return nil, errZero
		}
		return a % b, nil
	case "..":
		if b < a {
			return []any{}, nil
		}
		if b-a < 0 || b-a > maxMemory {
			f.reserve(maxMemory + 1)
		}
		list := f.list(b - a + 1)
		for i := range list {
			list[i] = a + i
		}
		return list, nil
	}
	return floats(op, float64(a), float64(b))
}

func floats(op string, a, b float64) (any, error) {
	var c float64
	switch op {
	case "+":
		c = a + b
	case "-":
		c = a - b
	case "*":
		c = a * b
	case "/":
		if b == 0 {
			return nil, errZero
		}
		c = a / b
	case "**", "^":
		c = math.Pow(a, b)
	default:
		return nil, fmt.Errorf("`%s` does not take numbers with a fraction", op)
	}
	if math.IsInf(c, 0) || math.IsNaN(c) {
		return nil, errOverflow
	}
	return c, nil
}

func durationOf(ns float64) (any, error) {
	if !(math.Abs(ns) < 1<<63) {
		return nil, errOverflow
	}
	return time.Duration(ns), nil
}

func negate(v any) (any, error) {
	switch v := v.(type) {
	case int:
		if v == math.MinInt {
			return nil, errOverflow
		}
		return -v, nil
	case float64:
		return -v, nil
	case time.Duration:
		if v == math.MinInt64 {
			return nil, errOverflow
		}
		return -v, nil
	}
	return nil, fmt.Errorf("%s has no negative", kindOf(v))
}

// orderable says whether one of two values can be the smaller one.
func orderable(l, r *Type) bool {
	ordered := func(t *Type) bool { return t.is(Int, Float, String, Duration, Any) }
	return ordered(l) && ordered(r) && (l.Kind == Any || r.Kind == Any || l.Kind == r.Kind || l.number() && r.number())
}

// compare is negative, zero or positive as a is less than, equal to or greater than b. No value here is a
// NaN: arithmetic refuses to make one.
func compare(a, b any) (int, error) {
	switch x := a.(type) {
	case int:
		switch y := b.(type) {
		case int:
			return order(x, y), nil
		case float64:
			return order(float64(x), y), nil
		}
	case float64:
		switch y := b.(type) {
		case int:
			return order(x, float64(y)), nil
		case float64:
			return order(x, y), nil
		}
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), nil
		}
	case time.Duration:
		if y, ok := b.(time.Duration); ok {
			return order(x, y), nil
		}
	}
	return 0, fmt.Errorf("%s cannot be compared with %s", kindOf(a), kindOf(b))
}

func order[T int | float64 | time.Duration](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// alike says whether two values can be equal at all: asking for it otherwise is a mistake.
func alike(l, r *Type) bool {
	switch {
	case l == nil || r == nil || l.is(Any, Null) || r.is(Any, Null) || l.number() && r.number():
		return true
	case l.is(Map, Object) && r.is(Map, Object):
		for name, field := range l.Fields {
			if other := r.Fields[name]; other != nil && !alike(field, other) {
				return false
			}
		}
		return l.Elem == nil || r.Elem == nil || alike(l.Elem, r.Elem)
	case l.Kind != r.Kind:
		return false
	case l.Kind == List:
		return alike(l.Elem, r.Elem)
	}
	return true
}

// equal compares two values; numbers by value, so that 1 equals 1.0.
func equal(f *frame, a, b any) bool {
	switch x := a.(type) {
	case nil:
		return b == nil
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case string:
		y, ok := b.(string)
		return ok && x == y
	case time.Duration:
		y, ok := b.(time.Duration)
		return ok && x == y
	case int:
		switch y := b.(type) {
		case int:
			return x == y
		case float64:
			return float64(x) == y
		}
	case float64:
		switch y := b.(type) {
		case int:
			return x == float64(y)
		case float64:
			return x == y
		}
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		f.enter()
		defer f.leave()
		f.visit(len(x))
		for i := range x {
			if !equal(f, x[i], y[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		f.enter()
		defer f.leave()
		f.visit(len(x))
		for k := range x {
			if other, there := y[k]; !there || !equal(f, x[k], other) {
				return false
			}
		}
		return true
	}
	return false
}

// contains says whether a list has an element, or a map a key.
func contains(f *frame, in, v any) (bool, error) {
	switch in := in.(type) {
	case []any:
		f.visit(len(in)/16 + 1)
		if n, ok := v.(int); ok { // slots: as fast as it can be
			for i := range in {
				if m, ok := in[i].(int); ok && m == n || !ok && equal(f, in[i], v) {
					return true, nil
				}
			}
			return false, nil
		}
		for i := range in {
			if equal(f, in[i], v) {
				return true, nil
			}
		}
		return false, nil
	case map[string]any:
		if k, ok := v.(string); ok {
			_, there := in[k]
			return there, nil
		}
	}
	return false, fmt.Errorf("`in` does not take %s and %s", kindOf(v), kindOf(in))
}
