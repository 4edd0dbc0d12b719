package expression

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
)

// A Function is what a reference page says about a function.
type Function struct {
	Name      string
	Signature string // name(argument type, [optional type]) result
	Doc       string
}

// Functions are all functions that an expression may call, by name.
func Functions() []Function {
	var all []Function
	for name, p := range predicates {
		all = append(all, Function{name, p.signature, p.doc})
	}
	for name, f := range functions {
		all = append(all, Function{name, name + f.signature(), f.doc})
	}
	slices.SortFunc(all, func(a, b Function) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (c *compiler) isFunction(name string) bool {
	_, p := c.predicates[name]
	_, f := functions[name]
	return p || f
}

// refused are functions of expr that an expression cannot have, and why.
var refused = map[string]string{
	"now":      "there is no clock in an expression; run.started_at is the only time",
	"date":     "dates depend on the zone of the machine; compare the text, or durations",
	"timezone": "the zones that are known depend on the machine",
	"keys":     "the keys of a map have no order; go through a list instead",
	"values":   "the values of a map have no order; go through a list instead",
	"toPairs":  "the keys of a map have no order; go through a list instead",
	"toJSON":   "use json(v), which writes durations as text",
}

// A function is evaluated with arguments that have the types of its parameters, null excluded.
type function struct {
	params []parameter
	result *Type
	of     func(args []*Type) *Type // the result, where it depends on the arguments
	shown  string                   // and how a signature shows it
	doc    string
	check  func(i int, v any) error // of an argument that is known without running
	run    func(f *frame, args []any) (any, error)
}

type parameter struct {
	name     string
	types    []*Type // any of them
	optional bool
	more     bool // the last one, as often as one likes
	null     bool // may be null
}

func one(name string, types ...*Type) parameter { return parameter{name: name, types: types} }

func optional(name string, types ...*Type) parameter {
	return parameter{name: name, types: types, optional: true}
}

func (f *function) signature() string {
	shown := make([]string, len(f.params))
	for i, p := range f.params {
		names := make([]string, len(p.types))
		for j, t := range p.types {
			names[j] = t.String()
		}
		shown[i] = p.name + " " + strings.Join(names, "|")
		switch {
		case p.optional:
			shown[i] = "[" + shown[i] + "]"
		case p.more:
			shown[i] += "…"
		}
	}
	result := f.shown
	if f.result != nil {
		result = f.result.String()
	}
	return "(" + strings.Join(shown, ", ") + ") " + result
}

// parameter is the one that argument i belongs to, nil if there are too many.
func (f *function) parameter(i int) *parameter {
	if n := len(f.params); i >= n && n > 0 && f.params[n-1].more {
		i = n - 1
	}
	if i >= len(f.params) {
		return nil
	}
	return &f.params[i]
}

func (f *function) required() int {
	n := 0
	for _, p := range f.params {
		if !p.optional {
			n++
		}
	}
	return n
}

// call compiles a call. Arguments that are all known are evaluated at once: a mistake in duration("5 m") is
// found before anything runs.
func (c *compiler) call(n ast.Node, name string, args []ast.Node, x context) code {
	if _, ok := c.predicates[name]; ok {
		return c.predicate(n, name, args, x)
	}
	fn, ok := functions[name]
	if !ok {
		if why := refused[name]; why != "" {
			c.failOn(n, RuleUnknownFunction, "", "%s is not available: %s", name, why)
		}
		all := slices.AppendSeq(slices.Collect(maps.Keys(functions)), maps.Keys(c.predicates))
		c.failOn(n, RuleUnknownFunction, nearest(name, all), "unknown function %s", name)
	}
	if len(args) < fn.required() || len(args) > 0 && fn.parameter(len(args)-1) == nil {
		c.failOn(n, RuleType, "", "%s%s: this call has %d arguments", name, fn.signature(), len(args))
	}
	t := code{node: n, typ: fn.result, fixed: true}
	codes, types := make([]code, len(args)), make([]*Type, len(args))
	for i := range args {
		codes[i] = c.argument(name, fn, args[i], i)
		types[i] = codes[i].typ
		t.fixed = t.fixed && codes[i].fixed
	}
	if fn.of != nil {
		if t.typ = fn.of(types); t.typ == nil {
			c.failOn(n, RuleType, "", "%s%s: the arguments do not go together", name, fn.signature())
		}
	}
	t.run = func(f *frame) any {
		values := make([]any, len(codes))
		for i, arg := range codes {
			p := fn.parameter(i)
			if values[i] = arg.run(f); values[i] == nil && !p.null {
				return fail(c.src.null(arg.node))
			}
			if arg.typ.Kind == Any && !p.takes(kindOf(values[i])) {
				return fail(c.src.evalError(arg.node, fmt.Errorf("%s needs %s, but %s is %s", name, fn.words(p), c.src.brief(arg.node), kindOf(values[i]))))
			}
		}
		v, err := fn.run(f, values)
		if err != nil {
			return fail(c.src.evalError(n, fmt.Errorf("%s: %w", name, err)))
		}
		return v
	}
	if !t.fixed {
		return t
	}
	v, err := (&Program{src: c.src, slots: c.slots}).run(t, nil)
	if err != nil {
		rule := RuleType
		if errors.Is(err, ErrLimit) {
			rule = RuleLimit
		}
		c.fail(n, rule, "", "%s", err.Error())
	}
	return c.constant(n, t.typ, v)
}

func (c *compiler) argument(name string, fn *function, n ast.Node, i int) code {
	arg, p := c.value(n), fn.parameter(i)
	fits := func(t *Type) bool { return Assignable(arg.typ.notNull(), t) }
	if arg.typ.Kind == Null && !p.null || !slices.ContainsFunc(p.types, fits) {
		c.fail(n, RuleType, "", "%s needs %s, but %s is %s", name, fn.words(p), c.src.brief(n), arg.typ)
	}
	if arg.fixed && fn.check != nil {
		v, err := (&Program{src: c.src, slots: c.slots}).run(arg, nil)
		if err == nil {
			err = fn.check(i, v)
		}
		if err != nil {
			c.fail(n, RuleType, "", "%s: %s", name, err.Error())
		}
	}
	return arg
}

// words says what is wanted of an argument: "int as n".
func (f *function) words(p *parameter) string {
	names := make([]string, len(p.types))
	for i, t := range p.types {
		names[i] = t.String()
	}
	words := strings.Join(names, " or ")
	if len(f.params) > 1 {
		words += " as " + p.name
	}
	return words
}

func (p *parameter) takes(k Kind) bool {
	for _, t := range p.types {
		if t.is(k, Any) || k == Int && t.Kind == Float || k == Map && t.Kind == Object {
			return true
		}
	}
	return p.null && k == Null
}

// same is the type of the first argument.
func same(args []*Type) *Type { return args[0].notNull() }

func element(args []*Type) *Type { return args[0].elem().orNull() }

var (
	intsType    = listOf(intType)
	stringsType = listOf(stringType)
)

// functions are all but the predicates. What has the name of a function of expr does what expr's does.
var functions = map[string]*function{
	// Slots and waves.
	"slots": {params: []parameter{one("set", stringType, intType, intsType)}, result: intsType,
		doc: `The slots of a set such as "0-3,8", of one slot or of a list: ascending, each once.`,
		run: func(f *frame, a []any) (any, error) {
			slots, err := toSlots(a[0])
			return f.ints(slots), err
		}},
	"ranges": {params: []parameter{one("slots", intsType)}, result: stringType,
		doc: `A list of slots as text: "0-3,8".`,
		run: func(f *frame, a []any) (any, error) {
			slots, err := toSlots(a[0])
			return formatRanges(slots), err
		}},
	"chunks": {params: []parameter{one("list", listType), one("n", intType)},
		of: func(args []*Type) *Type { return listOf(same(args)) }, shown: "list of lists",
		doc:   "The list in pieces of n elements; the last one may be shorter.",
		check: func(i int, v any) error { return atLeastOne(i == 1, v) },
		run: func(f *frame, a []any) (any, error) {
			if err := atLeastOne(true, a[1]); err != nil {
				return nil, err
			}
			return split(f, a[0].([]any), func(int) int { return a[1].(int) }), nil
		}},
	"waves": {params: []parameter{one("list", listType), one("sizes", listType), optional("most", intType)},
		of: func(args []*Type) *Type { return listOf(same(args)) }, shown: "list of lists",
		doc: `The list in waves of the given sizes: a number of elements, or a percentage of the whole list such as "10%", rounded up. The last size repeats; no wave is longer than most.`,
		check: func(i int, v any) error {
			if i == 1 {
				_, err := waveSizes(v.([]any), 100)
				return err
			}
			return atLeastOne(i == 2, v)
		},
		run: waves},
	"slot_of": {params: []parameter{one("key", stringType), one("slots", intType)}, result: intType,
		doc:   "The slot of a key among so many, as Codis and Pika hash: CRC32 of what stands between the first { and the next }, even if it is empty, or of the whole key.",
		check: func(i int, v any) error { return atLeastOne(i == 1, v) },
		run: func(_ *frame, a []any) (any, error) {
			if err := atLeastOne(true, a[1]); err != nil {
				return nil, err
			}
			return int(crc32.ChecksumIEEE([]byte(hashTag(a[0].(string), true)))) % a[1].(int), nil
		}},
	"keyslot": {params: []parameter{one("key", stringType)}, result: intType,
		doc: "The slot of a key in a Redis Cluster: CRC16 of what stands between the first { and the next }, if it is not empty, or of the whole key, among 16384.",
		run: func(_ *frame, a []any) (any, error) { return int(crc16(hashTag(a[0].(string), false))) % 16384, nil }},

	// Addresses, versions, amounts.
	"version_gte": {params: []parameter{one("version", stringType), one("least", stringType)}, result: boolType,
		doc:   `Whether a version is at least another, number by number: version_gte("7.0.15", "7.0.2"). 3.4.0-rc1 comes before 3.4.0.`,
		check: func(_ int, v any) error { _, err := parseVersion(v.(string)); return err },
		run:   versionGTE},
	"host": {params: []parameter{one("address", stringType)}, result: stringType,
		doc: `The host of an address such as "10.0.0.1:6379" or "[::1]:6379".`,
		run: func(_ *frame, a []any) (any, error) { host, _, err := splitAddress(a[0]); return host, err }},
	"port": {params: []parameter{one("address", stringType)}, result: intType,
		doc: `The port of an address such as "10.0.0.1:6379".`,
		run: func(_ *frame, a []any) (any, error) { _, port, err := splitAddress(a[0]); return port, err }},
	"addr": {params: []parameter{one("host", stringType), one("port", intType)}, result: stringType,
		doc: "The address of a host and a port; an IPv6 host is put in brackets.",
		run: func(_ *frame, a []any) (any, error) {
			if p := a[1].(int); p < 1 || p > 65535 {
				return nil, fmt.Errorf("%d is not a port", p)
			}
			return net.JoinHostPort(a[0].(string), strconv.Itoa(a[1].(int))), nil
		}},
	"duration": {params: []parameter{one("text", stringType)}, result: durationType,
		doc: `The length of time of a text such as "1.5s", "2h30m" or "7d".`,
		run: func(_ *frame, a []any) (any, error) { return parseDuration(a[0].(string)) }},
	"size": {params: []parameter{one("text", stringType)}, result: intType,
		doc: `The bytes of a size as Redis reads it: "64MB" and "64MiB" count in 1024, "64m" in 1000.`,
		run: func(_ *frame, a []any) (any, error) { return parseSize(a[0].(string)) }},
	"percent": {params: []parameter{one("n", floatType), one("of", floatType)}, result: floatType,
		doc: "How many percent n is of a whole, which must not be 0.",
		run: func(_ *frame, a []any) (any, error) {
			n, of := toFloat(a[0]), toFloat(a[1])
			if of == 0 {
				return nil, errors.New("the whole is 0")
			}
			return floats("/", 100*n, of)
		}},
	"json": {params: []parameter{{name: "value", types: []*Type{anyType}, null: true}}, result: stringType,
		doc: "A value as compact JSON: the keys of maps sorted, durations as text.",
		run: func(f *frame, a []any) (any, error) { return f.text(JSON, a[0]) }},

	// Numbers.
	"abs": {params: []parameter{one("n", intType, floatType, durationType)}, of: same, shown: "number", doc: "The number without its sign.",
		run: func(_ *frame, a []any) (any, error) {
			if c, err := compare(a[0], zero(kindOf(a[0]))); c >= 0 || err != nil {
				return a[0], err
			}
			return negate(a[0])
		}},
	"ceil":  rounding("up", math.Ceil),
	"floor": rounding("down", math.Floor),
	"round": rounding("to the nearest one", math.Round),
	"int": {params: []parameter{one("value", floatType, stringType)}, result: intType, doc: "A number without its fraction, or the number that a text is.",
		run: func(_ *frame, a []any) (any, error) {
			switch v := a[0].(type) {
			case int:
				return v, nil
			case float64:
				if !(math.Abs(v) < 1<<63) {
					return nil, errOverflow
				}
				return int(v), nil
			}
			n, err := strconv.Atoi(a[0].(string))
			if err != nil {
				return nil, fmt.Errorf("%q is not a whole number", a[0])
			}
			return n, nil
		}},
	"float": {params: []parameter{one("value", floatType, stringType)}, result: floatType, doc: "A number as one with a fraction, or the number that a text is.",
		run: func(_ *frame, a []any) (any, error) {
			if s, ok := a[0].(string); ok {
				n, err := strconv.ParseFloat(s, 64)
				if err != nil || math.IsInf(n, 0) || math.IsNaN(n) {
					return nil, fmt.Errorf("%q is not a number", s)
				}
				return n, nil
			}
			return toFloat(a[0]), nil
		}},
	"max":     extreme("largest", 1),
	"min":     extreme("smallest", -1),
	"mean":    average("The mean of the numbers, or of those in a list.", func(n []float64) float64 { return sumOf(n) / float64(len(n)) }),
	"median":  average("The middle one of the numbers, or of those in a list.", median),
	"bitand":  bits("The bits that both numbers have.", func(a, b int) int { return a & b }),
	"bitor":   bits("The bits that one of the numbers has.", func(a, b int) int { return a | b }),
	"bitxor":  bits("The bits that just one of the numbers has.", func(a, b int) int { return a ^ b }),
	"bitnand": bits("The bits of the first number that the second has not.", func(a, b int) int { return a &^ b }),
	"bitshl":  shift("The bits of a number moved up.", func(a int, n uint) int { return a << n }),
	"bitshr":  shift("The bits of a number moved down, with its sign.", func(a int, n uint) int { return a >> n }),
	"bitushr": shift("The bits of a number moved down, without its sign.", func(a int, n uint) int { return int(uint(a) >> n) }),
	"bitnot": {params: []parameter{one("n", intType)}, result: intType, doc: "The bits that a number has not.",
		run: func(_ *frame, a []any) (any, error) { return ^a[0].(int), nil }},

	// Text.
	"string": {params: []parameter{one("value", anyType)}, result: stringType, doc: "A value as it prints inside text: slots as ranges, other lists and maps as JSON.",
		run: func(f *frame, a []any) (any, error) { return f.text(Text, a[0]) }},
	"type": {params: []parameter{{name: "value", types: []*Type{anyType}, null: true}}, result: stringType,
		doc: "The kind of a value: nil, bool, int, float, string, duration, array or map.",
		run: func(_ *frame, a []any) (any, error) {
			switch k := kindOf(a[0]); k {
			case Null:
				return "nil", nil
			case List:
				return "array", nil
			default:
				return k.String(), nil
			}
		}},
	"upper": texts("The text in capital letters.", strings.ToUpper),
	"lower": texts("The text in small letters.", strings.ToLower),
	"trim": trimming("The text without spaces, or other characters, at both ends.", func(s string, cut *string) string {
		if cut == nil {
			return strings.TrimSpace(s)
		}
		return strings.Trim(s, *cut)
	}),
	"trimPrefix": trimming("The text without a beginning; a space if none is given.", func(s string, cut *string) string { return strings.TrimPrefix(s, or(cut, " ")) }),
	"trimSuffix": trimming("The text without an end; a space if none is given.", func(s string, cut *string) string { return strings.TrimSuffix(s, or(cut, " ")) }),
	"split":      splitting("The pieces of a text between separators; at most n.", strings.SplitN),
	"splitAfter": splitting("The pieces of a text with their separators; at most n.", strings.SplitAfterN),
	"replace": {params: []parameter{one("text", stringType), one("old", stringType), one("new", stringType), optional("n", intType)}, result: stringType,
		doc: "The text with new in place of old, everywhere or n times.",
		run: func(f *frame, a []any) (any, error) {
			s, from, to, n := a[0].(string), a[1].(string), a[2].(string), -1
			if len(a) > 3 {
				n = a[3].(int)
			}
			f.reserve(len(s) + strings.Count(s, from)*max(0, len(to)-len(from)))
			return strings.Replace(s, from, to, n), nil
		}},
	"repeat": {params: []parameter{one("text", stringType), one("n", intType)}, result: stringType, doc: "The text n times.",
		run: func(f *frame, a []any) (any, error) {
			s, n := a[0].(string), a[1].(int)
			if n < 0 {
				return nil, fmt.Errorf("a text cannot be repeated %d times", n)
			}
			if len(s) > 0 && n > maxMemory/len(s) {
				n, s = maxMemory+1, "x"
			}
			f.reserve(len(s) * n)
			return strings.Repeat(s, n), nil
		}},
	"join": {params: []parameter{one("list", stringsType), optional("between", stringType)}, result: stringType, doc: "The texts of a list one after the other.",
		run: func(f *frame, a []any) (any, error) {
			between := ""
			if len(a) > 1 {
				between = a[1].(string)
			}
			list := make([]string, len(a[0].([]any)))
			for i, v := range a[0].([]any) {
				s, ok := v.(string)
				if !ok {
					return nil, fmt.Errorf("element %d is %s, not text", i, kindOf(v))
				}
				f.reserve(16 + len(s) + len(between))
				list[i] = s
			}
			return strings.Join(list, between), nil
		}},
	"indexOf":     finding("Where a text has another inside, from 0; -1 if nowhere.", func(s, sub string) any { return strings.Index(s, sub) }, intType),
	"lastIndexOf": finding("Where a text has another inside for the last time; -1 if nowhere.", func(s, sub string) any { return strings.LastIndex(s, sub) }, intType),
	"hasPrefix":   finding("Whether a text begins with another.", func(s, sub string) any { return strings.HasPrefix(s, sub) }, boolType),
	"hasSuffix":   finding("Whether a text ends with another.", func(s, sub string) any { return strings.HasSuffix(s, sub) }, boolType),
	"toBase64": {params: []parameter{one("text", stringType)}, result: stringType, doc: "The text in Base64.",
		run: func(f *frame, a []any) (any, error) {
			f.reserve(len(a[0].(string))*4/3 + 4)
			return base64.StdEncoding.EncodeToString([]byte(a[0].(string))), nil
		}},
	"fromBase64": {params: []parameter{one("text", stringType)}, result: stringType, doc: "The text that Base64 stands for.",
		run: func(f *frame, a []any) (any, error) {
			f.reserve(len(a[0].(string)))
			b, err := base64.StdEncoding.DecodeString(a[0].(string))
			return string(b), err
		}},
	"fromJSON": {params: []parameter{one("text", stringType)}, result: anyType, doc: "The value that a JSON text stands for; its type is known only while running.",
		run: func(f *frame, a []any) (any, error) {
			f.reserve(16 * len(a[0].(string)))
			d := json.NewDecoder(strings.NewReader(a[0].(string)))
			d.UseNumber()
			var v any
			if err := d.Decode(&v); err != nil {
				return nil, fmt.Errorf("no JSON: %w", err)
			}
			if d.More() {
				return nil, errors.New("no JSON: more than one value")
			}
			return Decode(anyType, v), nil
		}},

	// Lists and maps.
	"len": {params: []parameter{one("of", stringType, listType, mapType)}, result: intType, doc: "How many elements, keys or characters there are.",
		run: func(_ *frame, a []any) (any, error) {
			switch v := a[0].(type) {
			case string:
				return utf8.RuneCountInString(v), nil
			case []any:
				return len(v), nil
			}
			return len(a[0].(map[string]any)), nil
		}},
	"first": {params: []parameter{one("list", listType)}, of: element, shown: "element or null", doc: "The first element; null if there is none.",
		run: func(_ *frame, a []any) (any, error) { return elementAt(a[0].([]any), min(0, len(a[0].([]any))-1)), nil }},
	"last": {params: []parameter{one("list", listType)}, of: element, shown: "element or null", doc: "The last element; null if there is none.",
		run: func(_ *frame, a []any) (any, error) { return elementAt(a[0].([]any), len(a[0].([]any))-1), nil }},
	"get": {params: []parameter{one("of", listType, mapType), one("key", intType, stringType)}, shown: "element or null",
		of: func(args []*Type) *Type {
			switch of, key := args[0], args[1]; {
			case of.Kind == List && key.is(Int, Any):
				return of.elem().orNull()
			case of.is(Map, Object) && key.is(String, Any):
				return keyed(of).orNull()
			case of.Kind == Any:
				return anyType
			}
			return nil
		},
		doc: "The element at a position, or under a key; null if there is none.",
		run: func(_ *frame, a []any) (any, error) {
			switch of := a[0].(type) {
			case []any:
				if i, ok := a[1].(int); ok {
					if i < 0 {
						i += len(of)
					}
					if i < 0 || i >= len(of) {
						return nil, nil
					}
					return of[i], nil
				}
			case map[string]any:
				if k, ok := a[1].(string); ok {
					return of[k], nil
				}
			}
			return nil, fmt.Errorf("%s has no %v", kindOf(a[0]), a[1])
		}},
	"take": {params: []parameter{one("list", listType), one("n", intType)}, of: same, shown: "list", doc: "The first n elements.",
		run: func(_ *frame, a []any) (any, error) {
			list := a[0].([]any)
			if a[1].(int) < 0 {
				return nil, fmt.Errorf("%d elements cannot be taken", a[1])
			}
			n := min(a[1].(int), len(list))
			return list[:n:n], nil
		}},
	"fromPairs": {params: []parameter{one("pairs", listType)}, result: mapType, doc: "The map of a list of pairs [key, value].",
		run: func(f *frame, a []any) (any, error) {
			m := map[string]any{}
			for i, v := range a[0].([]any) {
				pair, _ := v.([]any)
				if len(pair) != 2 {
					return nil, fmt.Errorf("element %d is not a pair", i)
				}
				k, ok := pair[0].(string)
				if !ok {
					return nil, fmt.Errorf("the key of element %d is not text", i)
				}
				f.reserve(48)
				m[k] = pair[1]
			}
			return m, nil
		}},
	"reverse": {params: []parameter{one("list", listType)}, of: same, shown: "list", doc: "The list from its end.",
		run: func(f *frame, a []any) (any, error) {
			list := f.copy(a[0].([]any))
			slices.Reverse(list)
			return list, nil
		}},
	"uniq": {params: []parameter{one("list", listType)}, of: same, shown: "list", doc: "The elements, each once.",
		run: func(f *frame, a []any) (any, error) {
			kept := []any{}
			for _, v := range a[0].([]any) {
				if found, _ := contains(f, kept, v); !found {
					f.reserve(16)
					kept = append(kept, v)
				}
			}
			return kept, nil
		}},
	"concat": {params: []parameter{{name: "lists", types: []*Type{listType}, more: true}}, shown: "list", doc: "The elements of one list after the other.",
		of: func(args []*Type) *Type {
			joined := listType
			for _, t := range args {
				if t.Kind == Any {
					return listOf(anyType)
				}
				elem, _ := join(joined.Elem, t.Elem)
				joined = listOf(elem)
			}
			return joined
		},
		run: func(f *frame, a []any) (any, error) {
			n := 0
			for i := range a {
				n += len(a[i].([]any))
			}
			list := f.list(n)[:0]
			for i := range a {
				list = append(list, a[i].([]any)...)
			}
			return list, nil
		}},
	"flatten": {params: []parameter{one("list", listType)}, shown: "list", doc: "The elements of the lists in a list, all the way down.",
		of: func(args []*Type) *Type {
			t := args[0].notNull()
			for t.Kind == List && t.Elem != nil && t.Elem.Kind == List {
				t = t.Elem
			}
			return listOf(t.elem())
		},
		run: func(f *frame, a []any) (any, error) { return flatten(f, []any{}, a[0].([]any)), nil }},
	"sort": {params: []parameter{one("list", listType), optional("order", stringType)}, of: same, shown: "list",
		doc: `The list in ascending order, or in descending order with "desc".`,
		run: func(f *frame, a []any) (any, error) {
			var order any = "asc"
			if len(a) > 1 {
				order = a[1]
			}
			return sortedBy(f, a[0].([]any), a[0].([]any), order)
		}},
}

func or(s *string, otherwise string) string {
	if s == nil {
		return otherwise
	}
	return *s
}

func rounding(how string, round func(float64) float64) *function {
	return &function{params: []parameter{one("n", floatType)}, result: floatType, doc: "The number rounded " + how + "; int(…) makes an int of it.",
		run: func(_ *frame, a []any) (any, error) { return round(toFloat(a[0])), nil }}
}

// extreme is max and min, of numbers or durations, given one by one or in lists.
func extreme(which string, sign int) *function {
	return &function{
		params: []parameter{{name: "values", types: []*Type{intType, floatType, durationType, listType}, more: true}},
		of: func(args []*Type) *Type {
			var joined *Type
			for _, t := range args {
				for t.Kind == List {
					t = t.elem()
				}
				if !t.is(Int, Float, Duration, Any) {
					return nil
				}
				wider, ok := join(joined, t.notNull())
				if !ok {
					return nil
				}
				joined = wider
			}
			return joined
		},
		shown: "number", doc: "The " + which + " of the numbers or durations, or of those in a list, which must not be empty.",
		run: func(f *frame, a []any) (any, error) {
			list := flatten(f, []any{}, a)
			if len(list) == 0 {
				return nil, errors.New("the list is empty")
			}
			best := list[0]
			for _, v := range list {
				order, err := compare(v, best)
				if err != nil || kindOf(v) == String {
					return nil, fmt.Errorf("%s is neither a number nor a duration", kindOf(v))
				}
				if order*sign > 0 {
					best = v
				}
			}
			return best, nil
		}}
}

func average(doc string, of func([]float64) float64) *function {
	return &function{
		params: []parameter{{name: "numbers", types: []*Type{floatType, listOf(floatType)}, more: true}}, result: floatType, doc: doc,
		run: func(f *frame, a []any) (any, error) {
			list := flatten(f, []any{}, a)
			if len(list) == 0 {
				return nil, errors.New("the list is empty")
			}
			numbers := make([]float64, len(list))
			for i, v := range list {
				if k := kindOf(v); k != Int && k != Float {
					return nil, fmt.Errorf("%s is not a number", k)
				}
				numbers[i] = toFloat(v)
			}
			return of(numbers), nil
		}}
}

func sumOf(numbers []float64) (sum float64) {
	for _, n := range numbers {
		sum += n
	}
	return sum
}

func median(numbers []float64) float64 {
	slices.Sort(numbers)
	middle := len(numbers) / 2
	if len(numbers)%2 == 1 {
		return numbers[middle]
	}
	return (numbers[middle-1] + numbers[middle]) / 2
}

func bits(doc string, op func(a, b int) int) *function {
	return &function{params: []parameter{one("a", intType), one("b", intType)}, result: intType, doc: doc,
		run: func(_ *frame, a []any) (any, error) { return op(a[0].(int), a[1].(int)), nil }}
}

func shift(doc string, op func(a int, n uint) int) *function {
	return &function{params: []parameter{one("a", intType), one("bits", intType)}, result: intType, doc: doc,
		run: func(_ *frame, a []any) (any, error) {
			if a[1].(int) < 0 {
				return nil, fmt.Errorf("bits cannot be moved by %d", a[1])
			}
			return op(a[0].(int), uint(a[1].(int))), nil
		}}
}

func texts(doc string, of func(string) string) *function {
	return &function{params: []parameter{one("text", stringType)}, result: stringType, doc: doc,
		run: func(f *frame, a []any) (any, error) {
			f.reserve(2 * len(a[0].(string)))
			return of(a[0].(string)), nil
		}}
}

func trimming(doc string, trim func(s string, cut *string) string) *function {
	return &function{params: []parameter{one("text", stringType), optional("cut", stringType)}, result: stringType, doc: doc,
		run: func(_ *frame, a []any) (any, error) {
			if len(a) == 1 {
				return trim(a[0].(string), nil), nil
			}
			cut := a[1].(string)
			return trim(a[0].(string), &cut), nil
		}}
}

func splitting(doc string, split func(s, sep string, n int) []string) *function {
	return &function{params: []parameter{one("text", stringType), one("separator", stringType), optional("n", intType)}, result: stringsType, doc: doc,
		run: func(f *frame, a []any) (any, error) {
			n := -1
			if len(a) > 2 {
				n = a[2].(int)
			}
			f.reserve(16 * (1 + strings.Count(a[0].(string), a[1].(string))))
			pieces := split(a[0].(string), a[1].(string), n)
			list := f.list(len(pieces))
			for i := range pieces {
				list[i] = pieces[i]
			}
			return list, nil
		}}
}

func finding(doc string, find func(s, sub string) any, result *Type) *function {
	return &function{params: []parameter{one("text", stringType), one("part", stringType)}, result: result, doc: doc,
		run: func(_ *frame, a []any) (any, error) { return find(a[0].(string), a[1].(string)), nil }}
}

func (f *frame) ints(numbers []int) []any {
	list := f.list(len(numbers))
	for i := range numbers {
		list[i] = numbers[i]
	}
	return list
}

func (f *frame) copy(list []any) []any {
	made := f.list(len(list))
	copy(made, list)
	return made
}

// text makes a text of a value within the budget.
func (f *frame) text(write func(any) (string, error), v any) (any, error) {
	f.weigh(v)
	s, err := write(v)
	f.reserve(len(s))
	return s, err
}

func flatten(f *frame, to, list []any) []any {
	f.enter()
	defer f.leave()
	f.visit(len(list))
	for _, v := range list {
		if inner, ok := v.([]any); ok {
			to = flatten(f, to, inner)
			continue
		}
		f.reserve(16)
		to = append(to, v)
	}
	return to
}

func toFloat(v any) float64 {
	if i, ok := v.(int); ok {
		return float64(i)
	}
	return v.(float64)
}

func atLeastOne(asked bool, v any) error {
	if n, ok := v.(int); asked && ok && n < 1 {
		return fmt.Errorf("%d is less than 1", n)
	}
	return nil
}

// toSlots makes a set of what a slots field takes: one slot, a list, or text with ranges.
func toSlots(v any) ([]int, error) {
	switch v := v.(type) {
	case string:
		return parseRanges(v)
	case int:
		return toSlots([]any{v})
	}
	slots := make([]int, len(v.([]any)))
	for i, s := range v.([]any) {
		n, ok := s.(int)
		if !ok {
			return nil, fmt.Errorf("element %d is %s, not int", i, kindOf(s))
		}
		if n < 0 || n >= maxSlots {
			return nil, fmt.Errorf("%d is not a slot", n)
		}
		slots[i] = n
	}
	return slotSet(slots), nil
}

// split cuts a list into pieces of the given sizes, of which there is one for every number from 0.
func split(f *frame, list []any, size func(i int) int) []any {
	pieces := []any{}
	for i := 0; len(list) > 0; i++ {
		n := min(size(i), len(list))
		f.reserve(48)
		pieces = append(pieces, list[:n:n])
		list = list[n:]
	}
	return pieces
}

func waves(f *frame, a []any) (any, error) {
	list := a[0].([]any)
	sizes, err := waveSizes(a[1].([]any), len(list))
	if err != nil {
		return nil, err
	}
	most := len(list)
	if len(a) > 2 {
		if err := atLeastOne(true, a[2]); err != nil {
			return nil, err
		}
		most = a[2].(int)
	}
	return split(f, list, func(i int) int { return min(most, sizes[min(i, len(sizes)-1)]) }), nil
}

// waveSizes are sizes in elements, each at least 1.
func waveSizes(sizes []any, of int) ([]int, error) {
	if len(sizes) == 0 {
		return nil, errors.New("there is no size")
	}
	numbers := make([]int, len(sizes))
	for i, size := range sizes {
		switch size := size.(type) {
		case int:
			numbers[i] = size
		case string:
			digits, isPercentage := strings.CutSuffix(size, "%")
			percent, err := strconv.ParseFloat(digits, 64)
			if err != nil || !isPercentage || !(percent > 0 && percent <= 100) {
				return nil, fmt.Errorf("%q is neither a number of elements nor a percentage such as \"10%%\"", size)
			}
			// of*percent first: 10% of 30 is 3, but 0.1*30 is a little more
			numbers[i] = max(1, int(math.Ceil(float64(of)*percent/100)))
		default:
			return nil, fmt.Errorf("size %d is %s, not int or a percentage", i, kindOf(size))
		}
		if numbers[i] < 1 {
			return nil, fmt.Errorf("size %d is less than 1", i)
		}
	}
	return numbers, nil
}

// hashTag is the part of a key that is hashed: between the first { and the first } after it. Codis and Pika
// hash an empty tag as such, Redis Cluster takes the whole key instead.
func hashTag(key string, empty bool) string {
	_, rest, open := strings.Cut(key, "{")
	tag, _, closed := strings.Cut(rest, "}")
	if !open || !closed || tag == "" && !empty {
		return key
	}
	return tag
}

// crc16 is CRC-16/XMODEM, as in the Redis Cluster specification.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

func splitAddress(v any) (host string, port int, err error) {
	host, digits, err := net.SplitHostPort(v.(string))
	if err == nil {
		port, err = strconv.Atoi(digits)
	}
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("%q is not an address such as \"10.0.0.1:6379\"", v)
	}
	return host, port, nil
}

type version struct {
	numbers []int
	pre     string // what makes it come before the release: rc, beta, …
	preN    int
}

// parseVersion reads 7.0.15, v3.4.0-rc1, 3.2.2-5-gabc. A suffix that does not begin with the name of a
// pre-release is about a build and says nothing of the order.
func parseVersion(s string) (version, error) {
	bad := fmt.Errorf("%q is not a version such as \"7.0.15\"", s)
	numbers, suffix, _ := strings.Cut(strings.TrimPrefix(s, "v"), "-")
	numbers, _, _ = strings.Cut(numbers, "+")
	var v version
	for part := range strings.SplitSeq(numbers, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return v, bad
		}
		v.numbers = append(v.numbers, int(n))
	}
	suffix = strings.ToLower(suffix)
	for _, name := range []string{"alpha", "beta", "dev", "pre", "rc", "snapshot", "unstable"} {
		if rest, ok := strings.CutPrefix(suffix, name); ok {
			v.pre = name
			digits := strings.TrimLeft(rest, ".-")
			end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
			if end < 0 {
				end = len(digits)
			}
			v.preN, _ = strconv.Atoi(digits[:end])
		}
	}
	return v, nil
}

func versionGTE(_ *frame, a []any) (any, error) {
	v, err := parseVersion(a[0].(string))
	if err != nil {
		return nil, err
	}
	least, err := parseVersion(a[1].(string))
	if err != nil {
		return nil, err
	}
	for i := range max(len(v.numbers), len(least.numbers)) {
		if a, b := numberAt(v.numbers, i), numberAt(least.numbers, i); a != b {
			return a > b, nil
		}
	}
	switch {
	case v.pre == least.pre:
		return v.preN >= least.preN, nil
	case v.pre == "" || least.pre == "":
		return v.pre == "", nil
	}
	return v.pre > least.pre, nil
}

func numberAt(numbers []int, i int) int {
	if i < len(numbers) {
		return numbers[i]
	}
	return 0
}

// String is the version as short as it can be written: 3.4.0 is 3.4.
func (v version) String() string {
	n := len(v.numbers)
	for n > 1 && v.numbers[n-1] == 0 {
		n--
	}
	var b strings.Builder
	for i, number := range v.numbers[:n] {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(strconv.Itoa(number))
	}
	if v.pre != "" {
		fmt.Fprintf(&b, "-%s%d", v.pre, v.preN)
	}
	return b.String()
}
