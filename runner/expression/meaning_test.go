package expression

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// in is a scope for expressions that are put in for the names of another one.
func inScope(names map[string]*Type) *Scope { return &Scope{Vars: names} }

func TestSubstitute(t *testing.T) {
	lag := &Type{Kind: Int, NonNegative: true, Nullable: true}
	step := object(map[string]*Type{"lag": lag, "role": stringType, "pos": object(map[string]*Type{"offset": intType}).orNull()})
	caller := inScope(map[string]*Type{"steps": object(map[string]*Type{"old": step, "new": step})})
	called := inScope(map[string]*Type{
		"steps":  object(map[string]*Type{"inner": step}),
		"inputs": object(map[string]*Type{"limit": intType, "name": stringType, "config": {Kind: Map, Elem: anyType}, "slots": intsType}),
	})
	term := func(source string, scope *Scope, substitute func([]string) (Term, bool)) Term {
		p, failed := Compile(source, scope, nil, Wait)
		if failed != nil {
			t.Fatalf("%s: %s", source, failed.Message)
		}
		return p.Term(substitute)
	}
	put := map[string]Term{
		"steps.inner":   Reference([]string{"steps", "old"}),
		"inputs.limit":  term("1024 * 2", caller, nil),
		"inputs.name":   Concat(Constant("node-"), term("steps.old.role", caller, nil)),
		"inputs.config": MapOf(map[string]Term{"most": Constant(5), "lag": term("steps.old.lag", caller, nil)}),
		"inputs.slots":  Constant([]any{1, 2, 3}),
	}
	substitute := func(path []string) (Term, bool) {
		t, ok := put[strings.Join(path, ".")]
		return t, ok
	}
	for source, want := range map[string]string{
		"steps.inner.lag == 0":                       "!(steps.old.lag > 0)",
		"steps.inner.lag <= inputs.limit":            "steps.old.lag <= 2048",
		"inputs.limit > 1":                           "true",
		"inputs.name == steps.inner.role":            "steps.old.role == 'node-' + steps.old.role",
		"inputs.config.most":                         "5",
		"inputs['config'].lag < inputs.config.most":  "steps.old.lag < 5",
		"inputs.config.nothing":                      "nil",
		"steps.inner.pos?.offset ?? 0":               "steps.old.pos.offset ?? 0",
		"all(inputs.slots, it < 4)":                  "all([1, 2, 3], it < 4)",
		"len(inputs.slots) == 3 && inputs.limit > 0": "true",
		"let x = inputs.limit; x + 1":                "2049",
		"steps.inner.lag in inputs.slots":            "steps.old.lag in [3, 2, 1]",
	} {
		got, wanted := term(source, called, substitute), term(want, caller, nil)
		if !got.Equal(wanted) || got.Key() != wanted.Key() {
			t.Errorf("%s is %s, want %s", source, got, wanted)
		}
	}
	if term("steps.inner.lag == 0", called, substitute).Equal(term("steps.new.lag == 0", caller, nil)) {
		t.Error("another step is the same")
	}
}

// TestSubstituteAsksForThePathFirst: what is known of a field counts before what is known of all.
func TestSubstituteAsksForThePathFirst(t *testing.T) {
	var asked []string
	p, _ := Compile("steps.a.pos?.offset == n", termScope, nil, Plain)
	p.Term(func(path []string) (Term, bool) {
		asked = append(asked, strings.Join(path, "."))
		return Term{}, false
	})
	want := []string{"steps.a.pos.offset", "steps.a.pos", "steps.a", "steps", "n"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestSubstituteStaysSmall puts a name in for itself, twice as large each time.
func TestSubstituteStaysSmall(t *testing.T) {
	p, _ := Compile("[words, words]", termScope, nil, Plain)
	q, _ := Compile("[words, words, []]", termScope, nil, Plain)
	grow := func(p *Program) Term {
		term := Reference([]string{"words"})
		for range 60 {
			was := term
			term = p.Term(func(path []string) (Term, bool) { return was, true })
		}
		return term
	}
	one, two := grow(p), grow(q)
	if n := len(one.Key()); n > 100_000 {
		t.Errorf("the key has %d bytes", n)
	}
	if !one.Equal(grow(p)) || one.Equal(two) {
		t.Error("what is not written out is not told apart")
	}
}

// TestTermsOfTemplates makes terms as templates do.
func TestTermsOfTemplates(t *testing.T) {
	role := termOf(t, "role", Plain)
	for _, tt := range []struct {
		term  Term
		want  string
		value any
	}{
		{Concat(Constant("a"), Constant(1), Constant(1500*time.Millisecond)), `"a11.5s"`, "a11.5s"},
		{Concat(Constant("a"), role, Constant(""), Constant("b"), Constant("c")), `"a" + role + "bc"`, nil},
		{Concat(role), "role", nil},
		{Concat(termOf(t, "lag", Plain)), "string(lag)", nil},
		{Concat(Constant([]any{0, 1, 2, 5})), `"0-2,5"`, "0-2,5"},
		{ListOf(Constant(1), Constant("x")), `[1, "x"]`, []any{1, "x"}},
		{ListOf(role), "[role]", nil},
		{MapOf(map[string]Term{"b": Constant(1), "a": role}), `{"a": role, "b": 1}`, nil},
		{MapOf(map[string]Term{"a": Constant(true)}), `{"a": true}`, map[string]any{"a": true}},
		{Select(MapOf(map[string]Term{"a": MapOf(map[string]Term{"b": role})}), "a", "b"), "role", nil},
		{Select(Reference([]string{"steps", "a"}), "lag"), "steps.a.lag", nil},
		{And(), "true", true},
		{And(Constant(true), termOf(t, "up", Plain)), "up", nil},
		{Not(termOf(t, "lag == 0 || up", Plain)), "lag != 0 && !up", nil},
		{Term{}, "nil", nil},
	} {
		if got := tt.term.String(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
		if v, ok := tt.term.Value(); tt.value != nil && (!ok || !equal(&frame{}, v, tt.value)) {
			t.Errorf("%s: the value is %v", tt.want, v)
		}
	}
	if !termOf(t, "'a' + role + 'b'", Plain).Equal(Concat(Constant("a"), role, Constant("b"))) {
		t.Error("a sum of texts and a template are not the same")
	}
	var paths []string
	for _, path := range termOf(t, "up && steps.a.lag == 0 && any(xs, it > n) || up", Plain).References() {
		paths = append(paths, strings.Join(path, "."))
	}
	if diff := cmp.Diff([]string{"up"}, paths); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestNonNegative: what is known of a type is not lost where it holds, and not kept where it does not.
func TestNonNegative(t *testing.T) {
	for source, want := range map[string]bool{
		"lag": true, "keys": true, "n": false, "-lag": false, "up ? lag : n": false, "up ? lag : 1": true, "xs[0]": true, "first(xs)": true,
		"[lag, n][0]": false, "lag + len(xs)": true, "lag - 1": false, "sum(xs)": true, "sum(ys)": false, "reduce(xs, #acc - it, lag)": false,
		"abs(n)": true, "max(lag, 1)": true, "min(lag, n)": false, "map(xs, -it)[0]": false, "find(items, .ok).lag": true, "lag * n": false,
		"(keys ?? 0)": true, "(keys ?? -1)": false, "concat(xs, ys)[0]": false, "concat(ys, xs)[0]": false, "[n, lag][0]": false, "lag % 5": true, "steps.a.lag": true, "let x = lag; x + 0": true,
	} {
		zero, least := termOf(t, "("+source+") == 0", Wait), termOf(t, "("+source+") <= 0", Wait)
		if got := Compare(zero, least) == Same; got != want {
			t.Errorf("%s: never below zero: %v, want %v (%s, %s)", source, got, want, zero, least)
		}
	}
}

// TestLargeTerms has expressions for which work could grow without measure.
func TestLargeTerms(t *testing.T) {
	repeat := func(n int, form, between string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = strings.ReplaceAll(form, "N", fmt.Sprint(i))
		}
		return strings.Join(all, between)
	}
	nested := func(n int, before, inner, after string) string {
		return strings.Repeat(before, n) + inner + strings.Repeat(after, n)
	}
	doubled := func(first, form, last string) string {
		source := "let a0 = " + first + "; "
		for i := range 40 {
			source += fmt.Sprintf("let a%d = %s; ", i+1, strings.ReplaceAll(form, "A", fmt.Sprintf("a%d", i)))
		}
		return source + last
	}
	for _, source := range []string{
		repeat(500, "lag != N", " && "),
		repeat(200, "(lag > N || n > N)", " && "),
		repeat(20, "(n + N > lag || maybe == N || up)", " && "),
		repeat(20, "(n + N > lag && maybe == N && up)", " || "),
		nested(200, "!(", "n > 1 || !(lag > 2 && rate < 1)", ")"),
		nested(150, "(up ? n > 1 : ", "lag > 1", ")"),
		nested(150, "(", "up", " ? n > 1 : lag > 2)"),
		nested(150, "(up == (n > 1 || ", "lag > 1", "))"),
		nested(60, "all(xs, it > 1 && ", "true", ")"),
		doubled("[n, n]", "[A, A]", "len(a40) == 2"),
		doubled("up", "(A && n > 1 || !A && lag > 2)", "a40"),
		doubled("up", "(A ? n > 1 : !A)", "a40"),
		repeat(300, "n + N", " < "),
	} {
		old, new := termOf(t, "("+source+") && rate < 0.5", Plain), termOf(t, source, Plain)
		if v := Compare(old, new); v == Stronger || v == Same {
			t.Errorf("%.40s… is %s without a condition", source, v)
		}
		if v := Compare(old, termOf(t, "("+source+") && rate < 0.50", Plain)); v != Same {
			t.Errorf("%.40s… is %s when nothing changes", source, v)
		}
	}
}

// TestKeysAreInjective: what differs in one thing has another key.
func TestKeysAreInjective(t *testing.T) {
	terms := []Term{
		Constant(nil), Constant(5), Constant(5.0), Constant("5"), Constant(5 * time.Nanosecond), Constant(true), Constant("true"), Constant([]any{5}), Constant([]any{"5"}),
		Constant([]any{}), Constant(map[string]any{}), Constant([]any{nil}), Constant("a"), Reference([]string{"a"}), Reference([]string{"a", "b"}), Reference([]string{"a.b"}),
		Select(Reference([]string{"a"}), "c"), ListOf(Reference([]string{"a"})), MapOf(map[string]Term{"a": Reference([]string{"a"})}),
		Concat(Reference([]string{"a"})), Concat(Reference([]string{"a"}), Constant("b")), Concat(Reference([]string{"a"}), Reference([]string{"b"})),
		termOf(t, "lag == 1", Plain), termOf(t, "lag != 1", Plain), termOf(t, "lag > 1", Plain), termOf(t, "n > 1", Plain), termOf(t, "rate > 1", Plain), termOf(t, "rate >= 1", Plain),
		termOf(t, "maybe > 1", Plain), termOf(t, "maybe > 1", Wait), termOf(t, "n < maybe", Plain), termOf(t, "n <= maybe", Plain), termOf(t, "n < maybe", Wait),
		termOf(t, "all(xs, it > 1)", Plain), termOf(t, "any(xs, it > 1)", Plain), termOf(t, "all(xs, any(xs, it > 1))", Plain), termOf(t, "all(xs, let x = it; any(xs, x > 1))", Plain),
		termOf(t, "steps.a.pos?.offset", Plain), termOf(t, "steps.a.pos.offset", Plain), termOf(t, "up && n > 1", Plain), termOf(t, "up || n > 1", Plain),
	}
	keys := map[string]int{}
	for i, term := range terms {
		if j, ok := keys[term.Key()]; ok {
			t.Errorf("%s and %s have the same key", terms[j], term)
		}
		keys[term.Key()] = i
		if slices.ContainsFunc(terms[:i], term.Equal) {
			t.Errorf("%s equals one before", term)
		}
	}
}
