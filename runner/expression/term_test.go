package expression

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// termScope has names of all types, some of which may be null.
var termScope = &Scope{Vars: map[string]*Type{
	"lag": {Kind: Int, NonNegative: true}, "keys": {Kind: Int, NonNegative: true, Nullable: true}, "n": intType, "maybe": intType.orNull(),
	"rate": floatType, "share": {Kind: Float, NonNegative: true, Nullable: true},
	"up": boolType, "ready": boolType.orNull(),
	"role": stringType, "note": stringType.orNull(),
	"pause": {Kind: Duration, NonNegative: true}, "left": durationType.orNull(),
	"xs": listOf(&Type{Kind: Int, NonNegative: true}), "ys": listOf(intType.orNull()), "words": stringsType,
	"labels": {Kind: Map, Elem: stringType},
	"any":    anyType,
	"steps": object(map[string]*Type{"a": object(map[string]*Type{
		"lag": {Kind: Int, NonNegative: true, Nullable: true}, "role": stringType,
		"pos": object(map[string]*Type{"offset": intType}).orNull()})}),
	"items": listOf(object(map[string]*Type{"lag": {Kind: Int, NonNegative: true}, "role": stringType.orNull(), "ok": boolType})),
}}

// drawEnv draws values for termScope.
func drawEnv(t *rapid.T) map[string]any {
	natural := rapid.IntRange(0, 4)
	integer := rapid.IntRange(-3, 5)
	orNull := func(v any, name string) any {
		if rapid.IntRange(0, 3).Draw(t, name+" null") == 0 {
			return nil
		}
		return v
	}
	word := rapid.SampledFrom([]string{"", "master", "slave", "a", "ab", "3.2", "3.4.0"})
	float := rapid.SampledFrom([]float64{-1, -0.5, 0, 0.5, 1, 2, 2.5})
	duration := rapid.SampledFrom([]time.Duration{0, time.Second, 2 * time.Second, 5 * time.Second, 5*time.Second - 1})
	list := func(name string, elem func() any) []any {
		l := make([]any, rapid.IntRange(0, 3).Draw(t, name))
		for i := range l {
			l[i] = elem()
		}
		return l
	}
	env := map[string]any{
		"lag": natural.Draw(t, "lag"), "keys": orNull(natural.Draw(t, "keys"), "keys"), "n": integer.Draw(t, "n"), "maybe": orNull(integer.Draw(t, "maybe"), "maybe"),
		"rate": float.Draw(t, "rate"), "share": orNull(math.Abs(float.Draw(t, "share")), "share"),
		"up": rapid.Bool().Draw(t, "up"), "ready": orNull(rapid.Bool().Draw(t, "ready"), "ready"),
		"role": word.Draw(t, "role"), "note": orNull(word.Draw(t, "note"), "note"),
		"pause": duration.Draw(t, "pause"), "left": orNull(duration.Draw(t, "left"), "left"),
		"xs":     list("xs", func() any { return natural.Draw(t, "x") }),
		"ys":     list("ys", func() any { return orNull(integer.Draw(t, "y"), "y") }),
		"words":  list("words", func() any { return word.Draw(t, "word") }),
		"labels": map[string]any{},
		"any":    rapid.SampledFrom([]any{nil, true, false, 1, 0, 2.5, "a", "master", time.Second, []any{1}}).Draw(t, "any"),
		"items": list("items", func() any {
			return map[string]any{"lag": natural.Draw(t, "lag"), "role": orNull(word.Draw(t, "role"), "role"), "ok": rapid.Bool().Draw(t, "ok")}
		}),
		"steps": map[string]any{"a": map[string]any{"lag": orNull(natural.Draw(t, "a.lag"), "a.lag"), "role": word.Draw(t, "a.role"),
			"pos": orNull(map[string]any{"offset": integer.Draw(t, "offset")}, "pos")}},
	}
	if rapid.Bool().Draw(t, "zone") {
		env["labels"].(map[string]any)["zone"] = word.Draw(t, "zone")
	}
	return env
}

var termLeaves = map[string][]string{
	"INT": {"lag", "keys", "n", "maybe", "0", "1", "2", "3", "-1", "len(xs)", "len(role)", "steps.a.lag", "steps.a.pos?.offset", "steps.a.pos.offset",
		"(maybe ?? 1)", "(steps.a.pos.offset ?? 0)", "count(xs, # > 1)", "xs[0]", "(up ? 1 : n)", "sum(xs)"},
	"CONST": {"0", "1", "2", "3", "-1", "0x2", "1_0", "1.0", "0.5", "2.5"},
	"FLOAT": {"rate", "share", "0.5", "1.0", "lag"},
	"BOOL": {"up", "ready", "true", "false", "any", "steps.a.role == 'master'", "lag == 0", "keys > 0", "maybe != 2", "note == 'a'", "maybe == nil", "note != nil",
		"(ready ?? false)", "pause < duration('5s')", "left >= duration('2000ms')", "labels.zone == 'a'", "any == 1", "1 / n > 0", "lag in [1, 2]", "role in ['master', 'slave']",
		"maybe in [1, nil]", "note in ['a', 'ab']", "version_gte(role, '3.2')", "version_gte(role, '3.4.0')", "role startsWith 'a'", "note contains 'a'", "n < maybe", "maybe == keys"},
	"STRING": {"role", "note", "'a'", `"master"`, "labels.zone", "steps.a.role", "string(lag)", "(note ?? 'a')"},
	"DUR":    {"pause", "left", "duration('5s')", "duration('2000ms')"},
	"LIST":   {"xs", "ys", "[1, 2]", "filter(xs, # > 0)", "[lag, n]", "map(items, .lag)"},
	"ITBOOL": {"it > 1", "it == 2", "# < n", "it in [1, 2]", "it != nil", "true", "it > 0 && up", "#index == 0", "any(xs, # == 1)", "it == maybe", "let e = it; any(xs, # > e)"},
	"ITEM":   {".lag > 1", "it.lag == 0", ".ok", "!.ok", ".role == 'a'", ".role contains 'a'", "#.ok && it.lag < 2", "true"},
}

var termForms = map[string][]string{
	"INT":   {"INT + INT", "INT * INT", "INT - INT", "-INT", "(BOOL ? INT : INT)", "INT % 3", "max(INT, INT)", "abs(INT)", "(INT ?? INT)", "len(LIST)", "count(LIST, ITBOOL)", "(let v1 = INT; v1 + v1)"},
	"FLOAT": {"FLOAT * FLOAT", "INT / 2"},
	"BOOL": {"BOOL && BOOL", "BOOL || BOOL", "BOOL and BOOL or BOOL", "!BOOL", "not BOOL", "BOOL ? BOOL : BOOL", "if BOOL { BOOL } else { BOOL }", "BOOL == BOOL", "BOOL != true", "BOOL == false",
		"INT == INT", "INT != INT", "INT < INT", "INT <= CONST", "CONST < INT", "INT >= CONST", "INT == CONST", "INT > CONST", "INT < INT <= INT", "FLOAT < CONST", "FLOAT >= FLOAT", "STRING == STRING", "STRING < STRING", "STRING != 'a'",
		"STRING contains STRING", "STRING startsWith 'ma'", "STRING in [STRING, 'a']", "INT in LIST", "INT not in [1, 2, 3]", "DUR < DUR", "DUR == DUR",
		"all(LIST, ITBOOL)", "any(LIST, ITBOOL)", "none(LIST, ITBOOL)", "one(LIST, ITBOOL)", "len(filter(LIST, ITBOOL)) == 0", "count(LIST, ITBOOL) > 0", "count(LIST, ITBOOL) >= CONST",
		"all(items, ITEM)", "any(items, ITEM)", "none(items, ITEM)", "find(items, ITEM) == nil", "findIndex(xs, ITBOOL) != nil", "(BOOL ?? BOOL)", "let v2 = BOOL; v2 || v2 && up", "INT == nil", "STRING == nil", "LIST == LIST"},
	"STRING": {"STRING + STRING", "(BOOL ? STRING : STRING)", "upper(STRING)", "string(INT)"},
	"DUR":    {"DUR + DUR", "DUR * 2"},
	"LIST":   {"filter(LIST, ITBOOL)", "reverse(LIST)", "concat(LIST, LIST)", "[INT, INT]", "map(xs, # + INT)"},
	"ITBOOL": {"ITBOOL && ITBOOL", "ITBOOL || ITBOOL", "!ITBOOL", "BOOL", "any(xs, ITBOOL)"},
	"ITEM":   {"ITEM && ITEM", "ITEM || ITEM", "!ITEM", "BOOL"},
}

// drawTerm draws an expression of termScope.
func drawTerm(t *rapid.T, kind string, depth int) string {
	if depth <= 0 || termForms[kind] == nil || rapid.IntRange(0, 5).Draw(t, "stop") == 0 {
		return rapid.SampledFrom(termLeaves[kind]).Draw(t, kind)
	}
	form := rapid.SampledFrom(termForms[kind]).Draw(t, kind+" form")
	var b strings.Builder
	for len(form) > 0 {
		end := strings.IndexFunc(form, func(r rune) bool { return r < 'A' || r > 'Z' })
		if end < 0 {
			end = len(form)
		}
		if termLeaves[form[:end]] != nil {
			inner := drawTerm(t, form[:end], depth-1)
			if !strings.HasPrefix(inner, "let") || kind != "ITBOOL" {
				inner = "(" + inner + ")"
			}
			b.WriteString(inner)
			form = form[end:]
			continue
		}
		b.WriteByte(form[0])
		form = form[1:]
	}
	return b.String()
}

// outcome is a value, or that there is none.
func outcome(p *Program, env map[string]any) any {
	v, err := p.Eval(env)
	if err != nil {
		return "fails"
	}
	return v
}

func drawProgram(t *rapid.T, kind string, want *Type, mode Mode) *Program {
	for range 100 {
		source := drawTerm(t, kind, rapid.IntRange(0, 4).Draw(t, "depth"))
		if strings.Count(source, "let v") > 1 || strings.Count(source, "let e") > 1 {
			continue
		}
		if p, failed := Compile(source, termScope, want, mode); failed == nil {
			return p
		}
	}
	t.Skip("nothing compiles")
	return nil
}

// TestTermMeansTheSame compiles the text of terms, and compares what comes out with the expression that they
// are the terms of.
func TestTermMeansTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{Plain, Wait}).Draw(t, "mode")
		kind := rapid.SampledFrom([]string{"BOOL", "BOOL", "BOOL", "INT", "STRING", "LIST"}).Draw(t, "kind")
		var want *Type
		if kind == "BOOL" {
			want = boolType
		}
		p := drawProgram(t, kind, want, mode)
		term := p.Term(nil)
		text := term.String()
		if strings.Contains(text, "known(") {
			return // there is no such function
		}
		if kind == "BOOL" {
			text = "true && (" + text + ")"
		}
		q, failed := Compile(text, termScope, want, Plain)
		if failed != nil && strings.Contains(failed.Message, "never null") {
			return // the compiler does not let one ask what it has a type for, though a map may not have the key
		}
		if kind != "BOOL" && strings.Contains(text, "labels") {
			return // a result that is null where its type does not say so is an error
		}
		if failed != nil {
			t.Fatalf("%s (mode %d) has the term %s: %s", p.Source, mode, term, failed.Message)
		}
		for range 20 {
			env := drawEnv(t)
			if a, b := outcome(p, env), outcome(q, env); !sameOutcome(a, b) {
				t.Fatalf("%s (mode %d) is %v, its term %s is %v, where %v", p.Source, mode, a, term, b, env)
			}
		}
		if again := q.Term(nil); again.Key() != term.Key() && false {
			t.Fatalf("%s has the term %s, which has the term %s", p.Source, term, again)
		}
	})
}

func sameOutcome(a, b any) bool {
	return kindOf(a) == kindOf(b) && equal(&frame{}, a, b)
}

func termOf(t fataler, source string, mode Mode) Term {
	t.Helper()
	p, failed := Compile(source, termScope, nil, mode)
	if failed != nil {
		t.Fatalf("%s: %s", source, failed.Message)
	}
	if p.Type.Kind == Bool {
		if p, failed = Compile(source, termScope, boolType, mode); failed != nil {
			p, _ = Compile(source, termScope, nil, mode)
		}
	}
	return p.Term(nil)
}

// TestTermsAlike has expressions that mean the same in each line.
func TestTermsAlike(t *testing.T) {
	both := []Mode{Plain, Wait}
	for _, tt := range []struct {
		modes   []Mode
		sources []string
	}{
		// Operands.
		{both, []string{"lag == 0", "0 == lag", "(lag) == (0)", "!(lag > 0)", "not (lag > 0)", "lag <= 0", "lag < 1", "!(lag >= 1)", "!(lag != 0)", "lag in [0]", "lag == 0.0", "lag == 0x0", "lag < 0.5", "lag not in [1] && lag < 2", "lag == +0"}},
		{both, []string{"maybe < 1", "maybe <= 0", "1 > maybe", "!(maybe >= 1)", "!(!(maybe <= 0))", "not not (maybe < 0x1)", "maybe < 1.0", "maybe < 0.1"}},
		{both, []string{"up && lag == 0", "lag == 0 && up", "lag == 0 and up", "!(!up || lag > 0)", "not (lag != 0 or not up)", "up == true && lag == 0", "lag == 0 && true && (up && up)", "up ? lag == 0 : false", "if up { 0 == lag } else { false }"}},
		{both, []string{"up || lag == 0 || n > 1", "n > 1 || (lag == 0 || up)", "!(n <= 1 && !up && lag > 0)", "up ? true : n >= 2 || lag < 1"}},
		{both, []string{"n + lag == 3", "3 == lag + n"}},
		{both, []string{"n * 2 > lag", "lag < 2 * n"}},
		{both, []string{"n < maybe", "maybe > n", "!(n >= maybe)"}},
		{both, []string{"role == 'a'", `"a" == role`, "role in ['a']", "role == `a`", "!(role != 'a')", "role in {a: 1}"}},
		{both, []string{"note == 'a' or note == 'ab'", "note in ['ab', 'a']", "note in ['a', 'ab', 'a']", "!(note not in ['a', 'ab'])"}},
		{both, []string{"lag in [3, 1, 2]", "lag in 1..3", "lag >= 1 && lag <= 3", "0 < lag < 4", "lag == 1 || lag == 2 || lag == 3", "lag > 0 && !(lag > 3)"}},
		{both, []string{"up", "up == true", "up != false", "!!up", "up ? true : false", "(up ?? false)", "up && (up || ready == true)", "up || up && lag > 3"}},
		{both, []string{"!up", "up == false", "up ? false : true"}},
		{both, []string{"pause < duration('5s')", "duration('5000ms') > pause", "!(pause >= duration('5s'))"}},
		{both, []string{"lag < size('1kb')", "lag < 1024", "lag < 1_024", "lag < 0x400", "lag <= 1023", "lag < 2 ** 10"}},
		{both, []string{"'a' + role + 'b' == note", "note == 'a' + (role + 'b')", "note == 'a' + string(role) + 'b'"}},
		{both, []string{"version_gte(role, '3.4')", "version_gte(role, 'v3.4.0')", "!!version_gte(role, '3.4.0.0')"}},
		{both, []string{"hasPrefix(role, 'a')", "role startsWith 'a'"}},
		// Lists.
		{both, []string{"all(items, .ok)", "all(items, it.ok)", "all(items, #.ok)", "all(items, {.ok})", "items | all(.ok)", "all(items, .ok == true)", "none(items, !.ok)", "!any(items, not .ok)", "count(items, !.ok) == 0", "len(filter(items, !.ok)) < 1"}},
		{both, []string{"none(xs, it > 2)", "len(filter(xs, # > 2)) == 0", "all(xs, it <= 2)", "!any(xs, it > 2)", "count(xs, it >= 3) == 0", "find(xs, it > 2) == nil", "findIndex(xs, it > 2) == nil", "!(count(xs, it > 2) > 0)"}},
		{both, []string{"all(items, .ok && .lag == 0)", "all(items, .ok) && all(items, .lag == 0)", "all(items, !(.lag > 0)) and all(items, .ok)"}},
		{both, []string{"one(xs, it > 2)", "count(xs, it > 2) == 1", "len(filter(xs, 2 < it)) == 1"}},
		{both, []string{"len(xs) == 0", "len(xs) < 1", "!(len(xs) > 0)", "len(xs) <= 0"}},
		{both, []string{"sum(items, .lag) == 0", "sum(map(items, it.lag)) <= 0"}},
		{both, []string{"let x = lag; x == 0 && up", "lag == 0 && up"}},
		{both, []string{"all(xs, any(words, len(it) > 1))", "all(xs, !none(words, len(#) >= 2))"}},
		{both, []string{"all(xs, let x = it; any(items, .lag > x))", "none(xs, let y = #; all(items, .lag <= y))"}},
		// Null.
		{both, []string{"maybe == nil", "nil == maybe", "!(maybe != nil)"}},
		{[]Mode{Plain}, []string{"maybe != nil && maybe < 5", "maybe != nil and !(maybe >= 5)", "maybe == nil ? false : maybe < 5", "(maybe ?? 9) < 5"}},
		{[]Mode{Wait}, []string{"maybe < 5", "maybe != nil && maybe < 5", "!(maybe >= 5)", "(maybe ?? 7) < 5"}},
		{both, []string{"(keys ?? 0) == 0", "!((keys ?? 0) > 0)", "keys == nil || keys == 0"}},
		{both, []string{"steps.a.pos?.offset ?? 0", "steps.a.pos.offset ?? 0", "steps?.a?.pos?.offset ?? 0", "steps['a'].pos?.offset ?? 0"}},
		{both, []string{"(ready ?? false) && up", "up && ready == true"}},
		{both, []string{"any == 1 && up", "up && any in [1.0]"}},
		// Constants.
		{both, []string{"true", "1 < 2", "'a' in ['a']", "all([1, 2], it > 0)", "duration('1m') == duration('60s')", "lag >= 0", "!(lag < 0)", "len(xs) > -1", "up || !up", "role startsWith ''[0:0] || true"}},
		{both, []string{"false", "lag < 0", "up && !up", "lag > 3 && lag < 2", "role == 'a' && role == 'b'"}},
		{both, []string{"n in [lag, 1]", "n in [1, lag, 1]"}},
		{both, []string{"any in [1, 'a', nil]", "any in ['a', nil, 1]"}},
		{both, []string{"[1, n, 2 + 1]", "[1, n, 3]"}},
		{both, []string{"{a: n, b: 1}", "{b: 1, 'a': n}"}},
		{both, []string{"up ? n : lag", "!up ? lag : n", "up == false ? lag : n", "if up { n } else { lag }"}},
		{both, []string{"slots('0-3,8')", "slots('8,0,1-3')", "[0, 1, 2, 3, 8]"}},
	} {
		for _, mode := range tt.modes {
			first := termOf(t, tt.sources[0], mode)
			for _, source := range tt.sources[1:] {
				if term := termOf(t, source, mode); !term.Equal(first) || term.Key() != first.Key() || Compare(first, term) != Same {
					t.Errorf("mode %d: %s is %s, but %s is %s", mode, tt.sources[0], first, source, term)
				}
			}
		}
	}
}

// TestTermsDiffer has pairs that look alike and are not the same: at least one environment tells them apart.
func TestTermsDiffer(t *testing.T) {
	for _, tt := range []struct {
		mode Mode
		a, b string
	}{
		{Plain, "n == 0", "n <= 0"},
		{Plain, "rate < 1", "rate <= 0"},
		{Plain, "maybe < 5", "maybe != nil && maybe < 5"}, // fails, is false
		{Plain, "maybe == 0 && n > 1 / n", "n > 1 / n && maybe == 0"},
		{Plain, "maybe > 0 && keys > 0", "keys > 0 && maybe > 0"},
		{Plain, "maybe != 0", "!(maybe == 0 || maybe == nil)"},
		{Wait, "keys == 0", "(keys ?? 0) == 0"},
		{Wait, "!(keys > 0)", "!((keys ?? 0) > 0)"},
		{Plain, "none(ys, it > 2)", "len(filter(ys, it > 2)) == 0"}, // the second looks at all, and fails for a null behind
		{Wait, "none(ys, it > 2)", "len(filter(ys, it > 2)) == 0"},
		{Plain, "all(xs, it > 1)", "any(xs, it > 1)"},
		{Plain, "'a' + role", "role + 'a'"},
		{Plain, "n - lag", "lag - n"},
		{Plain, "n + lag + 1", "n + (lag + 1)"}, // one may overflow where the other does not
		{Plain, "1", "1.0"},
		{Plain, "1 / n > 0 || up", "up || 1 / n > 0"},
		{Plain, "note contains 'a'", "note != nil && note contains 'a'"},
		{Plain, "xs == [1, 2]", "xs == [2, 1]"},
		{Plain, "steps.a.pos.offset", "steps.a.pos?.offset"},
		{Plain, "maybe in [1, nil]", "maybe in [1]"},
		{Plain, "version_gte(role, '3.4')", "role >= '3.4'"},
		{Plain, "let x = xs[0]; true", "true"},
		{Plain, "duration('5s')", "'5s'"},
		{Plain, "up", "ready"},
		{Plain, "any == 1", "any >= 1 && any <= 1"},
	} {
		a, b := termOf(t, tt.a, tt.mode), termOf(t, tt.b, tt.mode)
		if a.Equal(b) || a.Key() == b.Key() || Compare(a, b) == Same {
			t.Errorf("mode %d: %s and %s have the same term %s (%s)", tt.mode, tt.a, tt.b, a, b)
		}
	}
}

// A fataler is a test or a case of a property.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}
