package expression

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func object(fields map[string]*Type) *Type { return &Type{Kind: Object, Fields: fields} }

// testScope has a name of every type.
var testScope = &Scope{Vars: map[string]*Type{
	"connected": boolType,
	"lag":       intType,
	"maybe":     intType.orNull(),
	"perhaps":   boolType.orNull(),
	"rate":      floatType,
	"addr":      stringType,
	"note":      stringType.orNull(),
	"pause":     durationType,
	"later":     durationType.orNull(),
	"q":         intsType,
	"words":     stringsType,
	"flags":     listOf(boolType),
	"facts":     {Kind: Map, Elem: stringType},
	"anything":  anyType,
	"count":     intType, // the name of a function, too
	"inputs":    object(map[string]*Type{"min": intType, "slots": intsType, "max_pause": durationType}),
	"steps": object(map[string]*Type{
		"a": object(map[string]*Type{"keys": intType, "lag": intType.orNull(), "passed": boolType.orNull(),
			"pos":  object(map[string]*Type{"offset": intType}).orNull(),
			"deep": object(map[string]*Type{"pos": object(map[string]*Type{"offset": intType})}).orNull(), "status": stringType}),
		"caught_up": object(map[string]*Type{"lag": intType.orNull()}),
		"sample": object(map[string]*Type{
			"items": listOf(object(map[string]*Type{"key": stringType, "value_mismatches": intType.orNull(), "ok": boolType})),
			"by":    {Kind: Map, Elem: object(map[string]*Type{"before": stringType})},
		}),
	}),
}}

func testEnv() map[string]any {
	return map[string]any{
		"connected": true, "lag": 3, "maybe": nil, "perhaps": nil, "rate": 0.5, "addr": "10.0.0.1:6379", "note": nil,
		"pause": 1500 * time.Millisecond, "later": nil, "q": []any{3, 1, 2}, "words": []any{"b", "a"},
		"flags": []any{true, false}, "facts": map[string]any{"zone": "a"}, "anything": "x", "count": 7,
		"inputs": map[string]any{"min": 5, "slots": []any{0, 1, 2, 3, 8}, "max_pause": 2 * time.Second},
		"steps": map[string]any{
			"a":         map[string]any{"keys": 10, "lag": nil, "passed": nil, "pos": nil, "deep": nil, "status": "ok"},
			"caught_up": map[string]any{"lag": 0},
			"sample": map[string]any{
				"items": []any{
					map[string]any{"key": "x", "value_mismatches": 2, "ok": true},
					map[string]any{"key": "y", "value_mismatches": 1, "ok": false}},
				"by": map[string]any{"x": map[string]any{"before": "old"}},
			},
		},
	}
}

func compiled(t testing.TB, source string, want *Type, mode Mode) *Program {
	t.Helper()
	p, err := Compile(source, testScope, want, mode)
	if err != nil {
		t.Fatalf("%s: %d-%d %s: %s", source, err.Offset, err.End, err.Rule, err.Message)
	}
	return p
}

// TestErrors marks where each error stands with carets below the source.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		source, carets string
		want           *Type
		rule, message  string
		suggestion     string
	}{
		// Names.
		{source: "conected && lag == 0", carets: "^^^^^^^^", rule: RuleUnknownName, message: "unknown name conected", suggestion: "connected"},
		{source: "lag == 0 && zzz", carets: "            ^^^", rule: RuleUnknownName, message: "unknown name zzz"},
		{source: "steps.cought_up.lag", carets: "      ^^^^^^^^^", rule: RuleUnknownField, message: "steps has no field cought_up", suggestion: "caught_up"},
		{source: "steps.caught_up.log > 1", carets: "                ^^^", rule: RuleUnknownField, message: "steps.caught_up has no field log", suggestion: "lag"},
		{source: `steps["caught_up"].log`, carets: "                   ^^^", rule: RuleUnknownField, message: `steps["caught_up"] has no field log`, suggestion: "lag"},
		{source: "lag.x", carets: "    ^", rule: RuleUnknownField, message: "lag is int and has no fields"},
		{source: "q.length", carets: "  ^^^^^^", rule: RuleUnknownField, message: "q is list of int and has no fields"},
		{source: "len(it)", carets: "    ^^", rule: RuleUnknownName, message: "`it` is the element inside a predicate, such as all(list, it > 0); there is none here"},
		{source: "all(q, it > 0) && it > 0", carets: "                  ^^", rule: RuleUnknownName, message: "`it` is the element inside a predicate, such as all(list, it > 0); there is none here"},
		{source: "maybe == null", carets: "         ^^^^", rule: RuleUnknownName, message: "unknown name null", suggestion: "nil"},
		{source: "len > 3", carets: "^^^", rule: RuleUnknownName, message: "len is a function: write len(…)"},
		{source: "$env", carets: "^^^^", rule: RuleUnknownName, message: "unknown name $env"},
		{source: "full-sync", carets: "^^^^", rule: RuleUnknownName, message: "unknown name full"},
		// Functions.
		{source: "lenn(q)", carets: "^^^^", rule: RuleUnknownFunction, message: "unknown function lenn", suggestion: "len"},
		{source: "slot(q)", carets: "^^^^", rule: RuleUnknownFunction, message: "unknown function slot", suggestion: "slots"},
		{source: "now()", carets: "^^^", rule: RuleUnknownFunction, message: "now is not available: there is no clock in an expression; run.started_at is the only time"},
		{source: "addr.upper()", carets: "     ^^^^^", rule: RuleUnknownFunction, message: "values have no functions of their own; write f(x), not x.f()"},
		{source: "lag(1)", carets: "^^^", rule: RuleUnknownFunction, message: "unknown function lag"},
		{source: "len()", carets: "^^^", rule: RuleType, message: "len(of string|list|map) int: this call has 0 arguments"},
		{source: "len(q, q)", carets: "^^^", rule: RuleType, message: "len(of string|list|map) int: this call has 2 arguments"},
		{source: "len(lag)", carets: "    ^^^", rule: RuleType, message: "len needs string or list or map, but lag is int"},
		{source: `chunks(q, "2")`, carets: "          ^^^", rule: RuleType, message: `chunks needs int as n, but "2" is string`},
		{source: `chunks(q, 0)`, carets: "          ^", rule: RuleType, message: "chunks: 0 is less than 1"},
		{source: `waves(q, [1, "10"], 4)`, carets: "         ^^^^^^^^^", rule: RuleType, message: `waves: "10" is neither a number of elements nor a percentage such as "10%"`},
		{source: `slots("0-x")`, carets: "^^^^^^^^^^^^", rule: RuleType, message: `slots: "0-x" is not a set of slots such as "0-3,8": "x" is not a number`},
		{source: `pause > duration("5 s")`, carets: "        ^^^^^^^^^^^^^^^", rule: RuleType, message: `duration: "5 s" is not a duration such as "1.5s" or "7d"`},
		{source: `version_gte(addr, "x")`, carets: "                  ^^^", rule: RuleType, message: `version_gte: "x" is not a version such as "7.0.15"`},
		{source: "sum(words)", carets: "    ^^^^^", rule: RuleType, message: "sum adds numbers or durations, but words is list of string"},
		{source: "all(lag, it > 0)", carets: "    ^^^", rule: RuleType, message: "all goes through a list, but lag is int"},
		{source: "all(q, it + 1)", carets: "       ^^^^^^", rule: RuleType, message: "the condition of all needs true or false, but it + 1 is int"},
		{source: "sortBy(words, it, lag)", carets: "                  ^^^", rule: RuleType, message: `the order is "asc" or "desc", but lag is int`},
		// Operators: nothing is coerced.
		{source: "pause < 5", carets: "      ^", rule: RuleType, message: "`<` does not take pause (duration) and 5 (int); a length of time is written duration(\"5s\")"},
		{source: `"a" == 1`, carets: "    ^^", rule: RuleType, message: "`==` does not take \"a\" (string) and 1 (int)"},
		{source: "lag == addr", carets: "    ^^", rule: RuleType, message: "`==` does not take lag (int) and addr (string)"},
		{source: "connected + lag", carets: "          ^", rule: RuleType, message: "`+` does not take connected (bool) and lag (int)"},
		{source: `addr + lag`, carets: "     ^", rule: RuleType, message: "`+` does not take addr (string) and lag (int)"},
		{source: `addr < lag`, carets: "     ^", rule: RuleType, message: "`<` does not take addr (string) and lag (int)"},
		{source: "connected < connected", carets: "          ^", rule: RuleType, message: "`<` does not take connected (bool) and connected (bool)"},
		{source: "pause + 1", carets: "      ^", rule: RuleType, message: "`+` does not take pause (duration) and 1 (int); a length of time is written duration(\"5s\")"},
		{source: "pause * pause", carets: "      ^", rule: RuleType, message: "`*` does not take pause (duration) and pause (duration)"},
		{source: "pause == 5", carets: "      ^^", rule: RuleType, message: "`==` does not take pause (duration) and 5 (int); a length of time is written duration(\"5s\")"},
		{source: "connected == 1", carets: "          ^^", rule: RuleType, message: "`==` does not take connected (bool) and 1 (int)"},
		{source: `q == words`, carets: "  ^^", rule: RuleType, message: "`==` does not take q (list of int) and words (list of string)"},
		{source: "rate % 2", carets: "     ^", rule: RuleType, message: "`%` does not take rate (float) and 2 (int)"},
		{source: `"a" in q`, carets: "    ^^", rule: RuleType, message: "`in` does not take \"a\" (string) and q (list of int)"},
		{source: `"a" in addr`, carets: "    ^^", rule: RuleType, message: "`in` does not take \"a\" (string) and addr (string); whether a text has another inside is asked with contains"},
		{source: `1 in facts`, carets: "  ^^", rule: RuleType, message: "`in` does not take 1 (int) and facts (map of string)"},
		{source: `addr matches "["`, carets: "             ^^^", rule: RuleType, message: "\"[\" is not a pattern: missing closing ]: `[`"},
		{source: `lag contains "1"`, carets: "^^^", rule: RuleType, message: "`contains` needs text on both sides, but lag is int"},
		{source: "connected && lag", carets: "             ^^^", rule: RuleType, message: "`&&` needs true or false, but lag is int"},
		{source: "not lag", carets: "    ^^^", rule: RuleType, message: "`not` needs true or false, but lag is int"},
		{source: "-addr", carets: " ^^^^", rule: RuleType, message: "`-` needs a number, but addr is string"},
		{source: "lag ? 1 : 2", carets: "^^^", rule: RuleType, message: "the condition needs true or false, but lag is int"},
		{source: `connected ? 1 : "x"`, carets: "                ^^^", rule: RuleType, message: "both results of a condition have one type, but 1 is int and \"x\" is string"},
		{source: `maybe ?? "x"`, carets: "      ^^", rule: RuleType, message: "`??` does not take maybe (int or null) and \"x\" (string)"},
		{source: "lag == nil", carets: "^^^", rule: RuleType, message: "lag is int and never null"},
		{source: `q["x"]`, carets: "  ^^^", rule: RuleUnknownField, message: "q is list of int and has no fields"},
		{source: "q[addr + addr]", carets: "  ^^^^^^^^^^^", rule: RuleType, message: "q is list of int: addr + addr is no key of it, being string"},
		{source: "{a: 1, a: 2}", carets: "       ^", rule: RuleType, message: "the key a is there twice"},
		{source: "(let x = 1; x) + x", carets: "                 ^", rule: RuleUnknownName, message: "unknown name x"},
		{source: "q[rate:]", carets: "  ^^^^", rule: RuleType, message: "a position is int, but rate is float"},
		{source: "let lag = 1; lag", carets: "    ^^^", rule: RuleType, message: "lag has a meaning already; choose another name"},
		{source: "{(lag): 1}", carets: "  ^^^", rule: RuleType, message: "a key of a map is text, but lag is int"},
		// The result.
		{source: "lag", carets: "^^^", want: boolType, rule: RuleType, message: "must be true or false, but lag is int"},
		{source: "  (lag + 1)", carets: "   ^^^^^^^", want: boolType, rule: RuleType, message: "must be true or false, but lag + 1 is int"},
		{source: "steps.a.passed", carets: "^^^^^^^^^^^^^^", want: boolType, rule: RuleType, message: "must be true or false, but steps.a.passed may be null; say what counts then, such as steps.a.passed ?? false"},
		{source: "words", carets: "^^^^^", want: intsType, rule: RuleType, message: "must be list of int, but words is list of string"},
		{source: "rate", carets: "^^^^", want: intType, rule: RuleType, message: "must be int, but rate is float"},
		// Syntax.
		{source: "lag = 0", carets: "    ^", rule: RuleSyntax, message: "`=` does not compare", suggestion: "=="},
		{source: "lag === 0", carets: "    ^^^", rule: RuleSyntax, message: "there is no operator `===`", suggestion: "=="},
		{source: "lag !== 0", carets: "    ^^^", rule: RuleSyntax, message: "there is no operator `!==`", suggestion: "!="},
		{source: "lag <> 0", carets: "    ^^", rule: RuleSyntax, message: "there is no operator `<>`", suggestion: "!="},
		{source: "connected & perhaps", carets: "          ^", rule: RuleSyntax, message: "there is no operator `&`", suggestion: "&&"},
		{source: "connected | perhaps", carets: "          ^", rule: RuleSyntax, message: "there is no operator `|`", suggestion: "||"},
		{source: "connected | (perhaps)", carets: "          ^", rule: RuleSyntax, message: "there is no operator `|`", suggestion: "||"},
		{source: "connected AND perhaps", carets: "          ^^^", rule: RuleSyntax, message: "there is no operator `AND`", suggestion: "and"},
		{source: "pause < 5s", carets: "        ^^", rule: RuleSyntax, message: "`5s` is not a number", suggestion: `duration("5s")`},
		{source: "pause < 500ms && connected", carets: "        ^^^^^", rule: RuleSyntax, message: "`500ms` is not a number", suggestion: `duration("500ms")`},
		{source: "lag < 64MB", carets: "      ^^^^", rule: RuleSyntax, message: "`64MB` is not a number", suggestion: `size("64MB")`},
		{source: "maybe ?? 0 < 5", carets: "           ^", rule: RuleSyntax, message: "put parentheses around the part with `??`"},
		{source: "lag <", carets: "    ^", rule: RuleSyntax, message: "the expression ends too early"},
		{source: "len(q", carets: "    ^", rule: RuleSyntax, message: "the expression ends too early"},
		{source: "addr == 'x", carets: "        ^^", rule: RuleSyntax, message: "the text has no closing quote"},
		{source: "lag)", carets: "   ^", rule: RuleSyntax, message: "unexpected `)`"},
		{source: "steps.", carets: "     ^", rule: RuleSyntax, message: "the expression ends too early"},
		{source: "lag ~ 1", carets: "    ^", rule: RuleSyntax, message: "unrecognized character: U+007E '~'"},
		{source: "", carets: "", rule: RuleSyntax, message: "the expression is empty"},
		{source: "  \n", carets: "^^^", rule: RuleSyntax, message: "the expression is empty"},
		{source: "lag; 1", carets: "     ^", rule: RuleSyntax, message: "an expression has one value; `;` stands only after let"},
		{source: `b"x"`, carets: "^^^^", rule: RuleSyntax, message: "there are no byte strings; write the text without b"},
		{source: "lag == ${{ lag }}", carets: "       ^^^", rule: RuleInterpolation, message: "this field is an expression already: write the names without ${{ }}"},
		{source: "'é' == ${{ addr }}", carets: "       ^^^", rule: RuleInterpolation, message: "this field is an expression already: write the names without ${{ }}"},
		// Positions are in characters, on any line.
		{source: "addr == 'é→日' && lagg > 1", carets: "                 ^^^^", rule: RuleUnknownName, message: "unknown name lagg", suggestion: "lag"},
		{source: "connected &&\n  lag == 0 &&\n  steps.a.kees > 1", carets: "             " + "              " + "          ^^^^", rule: RuleUnknownField, message: "steps.a has no field kees", suggestion: "keys"},
		{source: "connected &&\n  pause < 5", carets: "             " + "        ^", rule: RuleType, message: "`<` does not take pause (duration) and 5 (int); a length of time is written duration(\"5s\")"},
	} {
		t.Run(tt.source, func(t *testing.T) {
			_, err := Compile(tt.source, testScope, tt.want, Plain)
			if err == nil {
				t.Fatal("compiles")
			}
			got := Error{err.Offset, err.End, err.Rule, err.Message, err.Suggestion}
			from := strings.Count(tt.carets, " ")
			want := Error{from, len(tt.carets), tt.rule, tt.message, tt.suggestion}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestSuggestionsCompile(t *testing.T) {
	for source, want := range map[string]string{
		"lag = 0":             "lag == 0",
		"connected & perhaps": "connected && perhaps",
		"connected | perhaps": "connected || perhaps",
		"lag === 0":           "lag == 0",
		"pause < 5s":          `pause < duration("5s")`,
		"lag < 64MB":          `lag < size("64MB")`,
		"steps.caught_up.lgg": "steps.caught_up.lag",
	} {
		_, err := Compile(source, testScope, nil, Plain)
		if err == nil {
			t.Fatalf("%s compiles", source)
		}
		r := []rune(source)
		fixed := string(r[:err.Offset]) + err.Suggestion + string(r[err.End:])
		if fixed != want {
			t.Errorf("%s: got %s, want %s", source, fixed, want)
		}
		compiled(t, fixed, nil, Plain)
	}
}

func TestEval(t *testing.T) {
	s := func(v ...any) []any { return append([]any{}, v...) }
	for _, tt := range []struct {
		source, typ string
		want        any
	}{
		{"lag + 1", "int", 4},
		{"lag + 1.5", "float", 4.5},
		{"lag / 2", "float", 1.5},
		{"7 % 4", "int", 3},
		{"2 ** 3", "float", 8.0},
		{"-lag", "int", -3},
		{"pause * 2", "duration", 3 * time.Second},
		{"1.5 * pause", "duration", 2250 * time.Millisecond},
		{"pause / 3", "duration", 500 * time.Millisecond},
		{"inputs.max_pause / pause", "float", 4.0 / 3},
		{"inputs.max_pause - pause", "duration", 500 * time.Millisecond},
		{`"a" + addr`, "string", "a10.0.0.1:6379"},
		{"1 < lag < 4", "bool", true},
		{"lag == 3.0", "bool", true},
		{"connected && !(lag > 5) or false", "bool", true},
		{"lag not in q", "bool", false},
		{`"zone" in facts`, "bool", true},
		{`addr matches "^10[.]" and addr contains ":" and addr startsWith "10" and addr endsWith "79"`, "bool", true},
		{"connected ? 1 : 2.5", "float", 1},
		{"if lag > 1 { q } else { [] }", "list of int", s(3, 1, 2)},
		{"let x = lag * 2; x + x", "int", 12},
		{"1..3", "list of int", s(1, 2, 3)},
		{"3..1", "list of int", s()},
		{"q[0] + q[-1]", "int", 5},
		{"q[1:]", "list of int", s(1, 2)},
		{`"héllo"[1:3]`, "string", "él"},
		{"facts.zone", "string", "a"},
		{"facts.nowhere ?? 'none'", "string", "none"},
		{`facts["zone"]`, "string", "a"},
		{"count + count(q, it > 1)", "int", 9},
		{"[1, 2.5]", "list of float", s(1, 2.5)},
		{`[1, "10%"]`, "list of any", s(1, "10%")},
		{`{a: 1, "b": "x"}`, "object {a, b}", map[string]any{"a": 1, "b": "x"}},
		{"{(addr): 1}", "map of int", map[string]any{"10.0.0.1:6379": 1}},
		{"maybe ?? 0", "int", 0},
		{"maybe ?? note ?? 'x'", "", nil},
		{"steps.a.pos?.offset", "int or null", nil},
		{"steps.a.pos.offset ?? 7", "int", 7},
		{"steps.a.deep?.pos.offset", "int or null", nil},
		{"(steps.a.pos?.offset ?? 1) + 1", "int", 2},
		{"maybe == nil", "bool", true},
		{"facts.nowhere == nil", "bool", true},
		{"nil in [maybe]", "bool", true},
		// Predicates.
		{"all(q, it in inputs.slots)", "bool", true},
		{"all(q, # > 0) and (q | any(# == 2))", "bool", true},
		{"any(q, {it > 2})", "bool", true},
		{"none(q, it > 3)", "bool", true},
		{"one(q, it == 1)", "bool", true},
		{"filter(q, it > 1)", "list of int", s(3, 2)},
		{"map(q, it * 2.0)", "list of float", s(6.0, 2.0, 4.0)},
		{"map(q, #index)", "list of int", s(0, 1, 2)},
		{"count(flags)", "int", 1},
		{"sum(q)", "int", 6},
		{"sum([])", "any", 0},
		{"sum(steps.sample.items, .value_mismatches) <= 3", "bool", true},
		{"sum(map(q, it * pause))", "duration", 9 * time.Second},
		{"find(q, it < 3)", "int or null", 1},
		{"find(q, it > 3)", "int or null", nil},
		{"findLast(q, it < 3)", "int or null", 2},
		{"findIndex(q, it == 2)", "int or null", 2},
		{"findLastIndex(q, it > 9)", "int or null", nil},
		{"groupBy(words, it)", "map of list of string", map[string]any{"a": s("a"), "b": s("b")}},
		{"sortBy(words, it)", "list of string", s("a", "b")},
		{"sortBy(steps.sample.items, .key, 'desc')[0].key", "string", "y"},
		{"reduce(q, #acc + it)", "int", 6},
		{"reduce(q, #acc + it / 2, 0)", "float", 3.0},
		{"all(q, let x = it; any(q, it == x))", "bool", true},
		{"map(q, filter(words, it == 'a'))", "list of list of string", s(s("a"), s("a"), s("a"))},
		{"map(q, let x = it; len(filter(q, it < x)))", "list of int", s(2, 0, 1)},
		{"steps.sample.by['x'].before", "string", "old"},
		// Functions.
		{`slots("8,0-3,2")`, "list of int", s(0, 1, 2, 3, 8)},
		{`slots(7)`, "list of int", s(7)},
		{`slots([3, 1, 3])`, "list of int", s(1, 3)},
		{"ranges(inputs.slots)", "string", "0-3,8"},
		{"ranges([])", "string", ""},
		{"chunks(inputs.slots, 2)", "list of list of int", s(s(0, 1), s(2, 3), s(8))},
		{`waves(0..29, [1, "10%", "100%"])`, "list of list of int", s(s(0), s(1, 2, 3), ints(4, 29))},
		{`map(waves(0..29, [1, "10%", "100%"], 10), len(it))`, "list of int", s(1, 3, 10, 10, 6)},
		{`map(waves(0..30, ["10%"]), len(it))`, "list of int", s(4, 4, 4, 4, 4, 4, 4, 3)},
		{`waves([], [1])`, "list of list", s()},
		{`version_gte("7.0.15", "7.0.2")`, "bool", true},
		{`version_gte("3.4.0-rc1", "3.4.0")`, "bool", false},
		{`version_gte("3.4.0", "3.4.0-rc1")`, "bool", true},
		{`version_gte("3.4.0-rc10", "3.4.0-rc9")`, "bool", true},
		{`version_gte("v7", "7.0.0")`, "bool", true},
		{`version_gte("3.2.2-5-gabc", "3.2.2")`, "bool", true},
		{`version_gte("255.255.255", "8.0")`, "bool", true},
		{"host(addr)", "string", "10.0.0.1"},
		{"port(addr)", "int", 6379},
		{`host("[::1]:80")`, "string", "::1"},
		{`addr("::1", 80)`, "string", "[::1]:80"},
		{`addr("h", 80)`, "string", "h:80"},
		{`duration("1d12h")`, "duration", 36 * time.Hour},
		{`duration("-1.5s")`, "duration", -1500 * time.Millisecond},
		{`size("64MB") == size("64MiB")`, "bool", true},
		{`size("512k")`, "int", 512000},
		{`size("1.5GB")`, "int", 3 << 29},
		{"percent(1, 8)", "float", 12.5},
		{`json({b: [1, 2.5, nil], a: pause, c: "<"})`, "string", `{"a":"1.5s","b":[1,2.5,null],"c":"<"}`},
		{"string(inputs.slots) + string(pause)", "string", "0-3,81.5s"},
		{"first(q) ?? 0", "int", 3},
		{"first([])", "any", nil},
		{"last(words)", "string or null", "a"},
		{"get(q, 7)", "int or null", nil},
		{"get(facts, 'zone')", "string or null", "a"},
		{"max(q)", "int", 3},
		{"min(1, 0.5, q)", "float", 0.5},
		{"max(pause, inputs.max_pause)", "duration", 2 * time.Second},
		{"mean(q)", "float", 2.0},
		{"median(1, 2, 3, 10)", "float", 2.5},
		{"sort(q, 'desc')", "list of int", s(3, 2, 1)},
		{"reverse(q)", "list of int", s(2, 1, 3)},
		{"uniq([1, 1.0, 2])", "list of float", s(1, 2)},
		{"concat(q, [4])", "list of int", s(3, 1, 2, 4)},
		{"flatten([[1], [2, 3]])", "list of int", s(1, 2, 3)},
		{"take(q, 9)", "list of int", s(3, 1, 2)},
		{`split("a,b", ",")`, "list of string", s("a", "b")},
		{`join(words, "+")`, "string", "b+a"},
		{`fromPairs([["a", 1]])`, "map", map[string]any{"a": 1}},
		{`fromJSON('{"n": 9007199254740993, "f": 1.5}').n`, "any", 9007199254740993},
		{`type(pause)`, "string", "duration"},
		{"int('42') + int(2.9)", "int", 44},
		{"abs(-2.5)", "float", 2.5},
		{"round(2.5)", "float", 3.0},
	} {
		t.Run(tt.source, func(t *testing.T) {
			p, failed := Compile(tt.source, testScope, nil, Plain)
			if tt.typ == "" {
				if failed == nil {
					t.Error("compiles")
				}
				return
			}
			if failed != nil {
				t.Fatal(failed)
			}
			if p.Type.String() != tt.typ {
				t.Errorf("type %s, want %s", p.Type, tt.typ)
			}
			got, err := p.Eval(testEnv())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if is, ok := conforms(got, p.Type); !ok {
				t.Errorf("%v is %s, not %s", got, is, p.Type)
			}
		})
	}
}

func ints(from, to int) []any {
	var list []any
	for ; from <= to; from++ {
		list = append(list, from)
	}
	return list
}

func TestEvalErrors(t *testing.T) {
	for _, tt := range []struct{ source, message, at string }{
		{"1 / (lag - 3)", "division by zero", "1 / (lag - 3)"},
		{"7 % (lag - 3)", "division by zero", "7 % (lag - 3)"},
		{"lag * 9223372036854775807", "the number does not fit in 64 bits", "lag * 9223372036854775807"},
		{"lag + 9223372036854775807", "the number does not fit in 64 bits", "lag + 9223372036854775807"},
		{"-9223372036854775807 - lag", "the number does not fit in 64 bits", "-9223372036854775807 - lag"},
		{"1e308 * lag", "the number does not fit in 64 bits", "1e308 * lag"},
		{"q[lag]", "q[lag]: there is no element 3 among 3", "q[lag]"},
		{"anything + 1", "`+` does not take string and int", "anything + 1"},
		{"anything < 1", "string cannot be compared with int", "anything < 1"},
		{"anything.x", "anything is string and has no x", "anything.x"},
		{"!(anything + anything)", "anything + anything must be true or false, but is string", "anything + anything"},
		{"-anything and true", "string has no negative", "-anything"},
		{"!anything", "anything must be true or false, but is string", "anything"},
		{"len(fromJSON('1'))", "", ""}, // found by Compile
		{"all(anything, it)", "anything must be a list", "anything"},
		{"chunks(q, lag - 3)", "chunks: 0 is less than 1", "chunks(q, lag - 3)"},
		{"abs(anything)", "abs needs int or float or duration, but anything is string", "anything"},
		{"port(note ?? 'x')", `port: "x" is not an address such as "10.0.0.1:6379"`, "port(note ?? 'x')"},
		{"max(filter(q, it > 9))", "max: the list is empty", "max(filter(q, it > 9))"},
		{"mean(filter(q, it > 9))", "mean: the list is empty", "mean(filter(q, it > 9))"},
		{"percent(lag, lag - 3)", "percent: the whole is 0", "percent(lag, lag - 3)"},
		{"lag + maybe", "maybe is null", "maybe"},
		{"  steps.a.pos.offset > 1", "steps.a.pos is null", "steps.a.pos"},
		{"len(note)", "note is null", "note"},
	} {
		t.Run(tt.source, func(t *testing.T) {
			p, failed := Compile(tt.source, testScope, nil, Plain)
			if tt.message == "" {
				if failed == nil {
					t.Fatal("compiles")
				}
				return
			}
			if failed != nil {
				t.Fatal(failed)
			}
			_, err := p.Eval(testEnv())
			if err == nil || err.Error() != tt.message {
				t.Fatalf("got %v, want %s", err, tt.message)
			}
			var from, to int
			switch err := err.(type) {
			case *NullError:
				from, to = err.Offset, err.End
			case *EvalError:
				from, to = err.Offset, err.End
			default:
				t.Fatalf("%T", err)
			}
			if at := string([]rune(tt.source)[from:to]); at != tt.at {
				t.Errorf("at %q, want %q", at, tt.at)
			}
		})
	}
}

// TestWanted compares a value that is known only while running with the type that is wanted of it.
func TestWanted(t *testing.T) {
	p := compiled(t, "anything", intsType, Plain)
	if p.Type.String() != "list of int" {
		t.Errorf("type %s", p.Type)
	}
	for _, tt := range []struct {
		value any
		err   string
	}{
		{[]any{1, 2}, ""},
		{nil, "anything is null"},
		{"x", "anything must be list of int, but is string"},
		{[]any{1, "x"}, "anything must be list of int, but is a list with string at [1]"},
	} {
		_, err := p.Eval(map[string]any{"anything": tt.value})
		if got := fmt.Sprint(err); err != nil && got != tt.err || err == nil && tt.err != "" {
			t.Errorf("%v: got %v, want %s", tt.value, err, tt.err)
		}
	}
	if v, err := compiled(t, "lag", floatType, Plain).Eval(testEnv()); v != 3.0 || err != nil {
		t.Errorf("an int where a float is wanted: %v %v", v, err)
	}
}

// TestNull has for each expression what it comes to in each mode while maybe, perhaps, later and note are
// null and lag is 3.
func TestNull(t *testing.T) {
	const null = "null"
	for _, tt := range []struct {
		source      string
		plain, wait any
	}{
		{"maybe < 5", null, false},
		{"maybe > 5", null, false},
		{"maybe <= 5", null, false},
		{"maybe >= 5", null, false},
		{"!(maybe > 0)", null, false},
		{"not (maybe <= 0)", null, false},
		{"!!(maybe > 0)", null, false},
		{"!(connected && maybe > 0)", null, false},
		{"!(maybe > 0 || false)", null, false},
		{"maybe == 0", false, false},
		{"maybe != 0", true, false},
		{"!(maybe != 0)", false, false},
		{"!(maybe == 0)", true, false},
		{"maybe == later", nil, nil},
		{"maybe == steps.a.lag", true, false},
		{"maybe == nil", true, true},
		{"maybe != nil", false, false},
		{"!(maybe == nil)", false, false},
		{"maybe in q", false, false},
		{"maybe not in q", true, false},
		{"!(note contains 'x')", null, false},
		{"note matches 'x'", null, false},
		{"later < pause", null, false},
		{"perhaps", nil, false},
		{"!perhaps", null, false},
		{"perhaps && connected", null, false},
		{"perhaps || connected", null, true},
		{"connected || perhaps", true, true},
		{"!(perhaps || false)", null, false},
		{"perhaps ?? true", true, true},
		{"(maybe ?? 0) == 0", true, true},
		{"maybe + 1 > 0", null, null},
		{"-maybe < 0", null, null},
		{"len(note) > 0", null, null},
		{"(maybe > 0) == true", null, null},
		{"maybe > 0 ? true : true", null, null},
		{"connected ? maybe > 0 : false", null, false},
		{"!(connected ? maybe > 0 : false)", null, false},
		{"all(q, it > maybe)", null, false},
		{"!all(q, it > maybe)", null, false},
		{"any(q, it > maybe)", null, false},
		{"none(q, it > maybe)", null, false},
		{"!none(q, it > maybe)", null, false},
		{"one(q, it > maybe)", null, null},
		{"len(filter(q, it > maybe)) == 0", null, null},
		{"let x = maybe; x > 0", null, false},
		{"!(let x = maybe; x > 0)", null, false},
		{"steps.a.pos?.offset == 0", false, false},
		{"steps.a.pos.offset == 0", null, null},
		{"0 < maybe < 5", null, false},
	} {
		t.Run(tt.source, func(t *testing.T) {
			for mode, want := range map[Mode]any{Plain: tt.plain, Wait: tt.wait} {
				p, failed := Compile(tt.source, testScope, boolType, mode)
				if want == nil {
					if failed == nil {
						t.Errorf("mode %d: compiles", mode)
					}
					continue
				}
				if failed != nil {
					t.Fatal(failed)
				}
				got, err := p.Eval(testEnv())
				if _, isNull := errors.AsType[*NullError](err); isNull {
					got, err = null, nil
				}
				if err != nil || got != want {
					t.Errorf("mode %d: got %v, %v, want %v", mode, got, err, want)
				}
			}
		})
	}
}

func TestRefs(t *testing.T) {
	for _, tt := range []struct {
		source string
		want   []string // path@offsets-end, ! if guarded
	}{
		{"lag == 0 && connected", []string{"lag@0-3", "connected@12-21"}},
		{"steps.a.lag > 1", []string{"steps.a.lag@0,6,8-11"}},
		{"steps.a?.lag > 1", []string{"steps.a.lag!@0,6,9-12"}},
		{"(steps.a.lag ?? 0) > 1", []string{"steps.a.lag!@1,7,9-12"}},
		{"(steps.a.lag ?? nil) == 1", []string{"steps.a.lag@1,7,9-12"}},
		{"(steps.a.lag ?? steps.caught_up.lag ?? 0) > 1", []string{"steps.a.lag!@1,7,9-12", "steps.caught_up.lag!@16,22,32-35"}},
		{"(steps.a.lag ?? steps.caught_up.lag) > 1", []string{"steps.a.lag!@1,7,9-12", "steps.caught_up.lag@16,22,32-35"}},
		{"steps.sample.items[0].value_mismatches ?? 0", []string{"steps.sample.items!@0,6,13-18"}},
		{"steps.sample.items[lag].ok", []string{"steps.sample.items@0,6,13-18", "lag@19-22"}},
		{`steps["a"].lag`, []string{"steps.a.lag@0,6,11-14"}},
		{"sum(steps.sample.items, .value_mismatches)", []string{"steps.sample.items@4,10,17-22"}},
		{"all(q, let x = it; x > 0)", []string{"q@4-5"}},
		{"1 < lag < 4", []string{"lag@4-7"}},
		{"steps.a.pos?.offset", []string{"steps.a.pos.offset@0,6,8,13-19"}},
		{"connected &&\n steps.a.keys > inputs.min", []string{"connected@0-9", "steps.a.keys@14,20,22-26", "inputs.min@29,36-39"}},
	} {
		t.Run(tt.source, func(t *testing.T) {
			var got []string
			for _, r := range compiled(t, tt.source, nil, Plain).Refs {
				text := strings.Join(r.Path, ".")
				if r.Guarded {
					text += "!"
				}
				offsets := strings.ReplaceAll(strings.Trim(fmt.Sprint(r.Offsets), "[]"), " ", ",")
				got = append(got, fmt.Sprintf("%s@%s-%d", text, offsets, r.End))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestParts(t *testing.T) {
	for _, tt := range []struct {
		source string
		want   []Part
	}{
		{"connected && lag == 0", []Part{{"connected", true}, {"lag", 3}}},
		{"connected", []Part{{"connected", true}}},
		{"!(lag > 0) || (steps.a.keys + 1) * 2 > inputs.min", []Part{{"lag", 3}, {"(steps.a.keys + 1) * 2", 22}, {"inputs.min", 5}}},
		{"all(q, it in inputs.slots) && lag in [1, 2]", []Part{{"all(q, it in inputs.slots)", false}, {"lag", 3}}},
		{"lag > 1 && lag < 9", []Part{{"lag", 3}}},
		{"1 < lag < 4", []Part{{"lag", 3}}},
		{"len(q) == 3 and maybe == nil", []Part{{"len(q)", 3}, {"maybe", nil}}},
		{`pause < duration("5s")`, []Part{{"pause", 1500 * time.Millisecond}}},
		{"steps.sample.items[0].ok", []Part{{"steps.sample.items[0].ok", true}}},
		{"(perhaps ?? false) && (connected ? true : false)", []Part{{"perhaps ?? false", false}, {"connected ? true : false", true}}},
		{"if lag > 1 { connected } else { false }", []Part{{"if lag > 1 { connected } else { false }", true}}},
		{"q | any(it == 9)", []Part{{"q | any(it == 9)", false}}},
		{"let x = lag; x > 1", []Part{{"let x = lag; x > 1", true}}},
		{"{a: lag}.a == 3", []Part{{"{a: lag}.a", 3}}},
		{"lag + 1", nil},
	} {
		t.Run(tt.source, func(t *testing.T) {
			want := boolType
			if tt.want == nil {
				want = nil
			}
			env := testEnv()
			env["q"] = []any{1, 9 - 4}
			if strings.Contains(tt.source, "len(q)") {
				env["q"] = []any{1, 2, 3}
			}
			got := compiled(t, tt.source, want, Plain).Parts(env)
			if diff := cmp.Diff(tt.want, got); diff != "" && len(got)+len(tt.want) > 0 {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	parts := compiled(t, "maybe + 1 > 0", boolType, Wait).Parts(testEnv())
	if len(parts) != 1 || fmt.Sprint(parts[0].Value) != "maybe is null" {
		t.Errorf("a term that fails: %v", parts)
	}
}

func TestDistances(t *testing.T) {
	for _, tt := range []struct {
		source string
		want   []Distance
	}{
		{"connected && lag == 0", []Distance{{"lag", 3, 0, true, false}}},
		{"lag == 3", []Distance{{"lag", 3, 3, true, true}}},
		{"!(lag > 0)", []Distance{{"lag", 3, 0, true, false}}},
		{"!(lag > 5)", []Distance{{"lag", 3, 5, true, true}}},
		{"maybe == 0", []Distance{{Text: "maybe"}}},
		{`pause < duration("1s")`, []Distance{{"pause", 1.5, 1, true, false}}},
		{"steps.a.keys > inputs.min || 0.5 <= rate", []Distance{{"steps.a.keys > inputs.min", 10, 5, true, true}, {"rate", 0.5, 0.5, true, true}}},
		{"addr == 'x' && connected == true", nil},
		{"maybe != nil", nil},
		{"all(q, it == 0)", nil},
		{"connected ? lag == 0 : false", nil},
		{"sum(q) == 0", []Distance{{"sum(q)", 6, 0, true, false}}},
		{"anything == 0", []Distance{{Text: "anything"}}},
		{"lag + maybe == 0", []Distance{{Text: "lag + maybe"}}},
	} {
		t.Run(tt.source, func(t *testing.T) {
			p := compiled(t, tt.source, boolType, Wait)
			if p.Numeric() != (len(tt.want) > 0) {
				t.Errorf("numeric: %v", p.Numeric())
			}
			got := p.Distances(testEnv())
			if diff := cmp.Diff(tt.want, got); diff != "" && len(got)+len(tt.want) > 0 {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestConstant(t *testing.T) {
	for source, want := range map[string]any{
		"1 + 2":               3,
		"true && !false":      true,
		`duration("1m") * 2`:  2 * time.Minute,
		"all([1, 2], it > 0)": true,
		"let x = 2; x * x":    4,
		"maybe == nil":        nil,
		"lag * 0":             nil,
		"all([1], it > lag)":  nil,
		"[1][3]":              nil,
	} {
		v, ok := compiled(t, source, nil, Plain).Constant()
		if v != want || ok != (want != nil) {
			t.Errorf("%s: %v %v, want %v", source, v, ok, want)
		}
	}
}
