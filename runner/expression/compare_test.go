package expression

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCompare(t *testing.T) {
	for _, tt := range []struct {
		old, new    string
		plain, wait Verdict
	}{
		// Bounds.
		{"lag == 0", "lag < 1000", Weaker, Weaker},
		{"lag < 1000", "lag == 0", Stronger, Stronger},
		{"!(lag > 0)", "1000 > lag", Weaker, Weaker},
		{"maybe == 0", "maybe < 1000", Weaker, Weaker},
		{"maybe >= 2", "maybe >= 1", Weaker, Weaker},
		{"n == 2", "n in [1, 2]", Weaker, Weaker},
		{"role in ['a', 'b']", "role in ['a', 'b', 'c']", Weaker, Weaker},
		{"role not in ['a', 'b']", "role not in ['a']", Weaker, Weaker},
		{"role in ['a', 'b']", "role in ['b', 'c']", Different, Different},
		{"pause < duration('2s')", "pause < duration('1m')", Weaker, Weaker},
		{"lag < size('64kb')", "lag < size('1mb')", Weaker, Weaker},
		{"version_gte(role, '3.4')", "version_gte(role, '3.2.9')", Weaker, Weaker},
		{"!version_gte(role, '3.4')", "!version_gte(role, '3.2.9')", Stronger, Stronger},
		{"role startsWith '3.4.'", "role startsWith '3.'", Weaker, Weaker},
		{"role == 'master'", "role startsWith 'm'", Weaker, Weaker},
		{"role < 'a'", "role < 'b'", Weaker, Weaker},
		{"role in [note, 'a']", "role in ['b', 'a', note]", Weaker, Weaker},
		{"role == 'a'", "role in ['a', steps.a.role]", Weaker, Weaker},
		{"lag == 0", "lag in [0, n]", Weaker, Weaker},
		{"any in [1, 'a']", "any in ['b', 'a', 1]", Weaker, Weaker},
		{"any not in [1, 'a']", "any not in ['b', 'a', 1]", Stronger, Stronger},
		{"rate < 0.5", "rate <= 0.5", Weaker, Weaker},
		{"n < maybe", "n <= maybe", Weaker, Weaker},
		{"n == maybe", "n <= maybe", Weaker, Weaker},
		{"len(xs) == 0", "len(xs) < 3", Weaker, Weaker},
		// Joined.
		{"up && lag == 0", "up", Weaker, Weaker},
		{"up && lag == 0", "lag == 0", Weaker, Weaker},
		{"up", "up || lag == 0", Weaker, Weaker},
		{"up && lag == 0", "up || lag == 0", Weaker, Weaker},
		{"up || lag == 0", "up && lag == 0", Stronger, Stronger},
		{"up && (role == 'a' || lag < 5)", "up && (role == 'a' || lag < 50)", Weaker, Weaker},
		{"up && (role == 'a' || lag < 5)", "(lag < 50 || role in ['a', 'b']) && up", Weaker, Weaker},
		{"up && (role == 'a' || lag < 5)", "up && (role == 'b' || lag < 50)", Different, Different},
		{"up ? lag < 5 : lag < 2", "up ? lag < 9 : lag < 2", Weaker, Weaker},
		{"up && lag < 5 || n == 1 && lag < 9", "up && lag < 6 || n <= 1 && lag < 9", Weaker, Weaker},
		{"up && lag < 5 || !up && lag < 5", "lag < 5", Same, Same},
		{"lag < 5 && (up || n > 1)", "lag < 5 && up || lag < 5 && n > 1", Same, Same},
		{"!(up && lag > 5)", "!(up && lag > 7)", Weaker, Weaker},
		{"!(up || lag > 5)", "!(up)", Weaker, Weaker},
		{"!(lag < 5)", "!(lag < 9)", Stronger, Stronger},
		{"up == (lag > 0)", "up == (lag > 1)", Different, Different},
		{"lag == 0", "true", Weaker, Weaker},
		{"lag == 0", "false", Stronger, Stronger},
		{"lag == 0", "n == 0", Different, Different},
		{"lag == 0", "1 / n == 0", Different, Different},
		// Lists.
		{"all(xs, it > 1)", "any(xs, it > 1)", Different, Different}, // of an empty list
		{"len(xs) > 0 && all(xs, it > 1)", "any(xs, it > 1)", Weaker, Weaker},
		{"all(xs, it > 2)", "all(xs, it > 1)", Weaker, Weaker},
		{"any(xs, it > 2)", "any(xs, it > 1)", Weaker, Weaker},
		{"none(xs, it > 1)", "none(xs, it > 2)", Weaker, Weaker},
		{"all(items, .ok && .lag < 2)", "all(items, .ok)", Weaker, Weaker},
		{"all(items, .ok) && all(items, .lag < 2)", "all(items, .lag < 3)", Weaker, Weaker},
		{"all(xs, it > n)", "all(xs, it >= n)", Weaker, Weaker},
		{"count(xs, it > 1) >= 2", "count(xs, it > 1) >= 1", Weaker, Weaker},
		{"count(xs, it > 1) >= 2", "count(xs, it > 0) >= 1", Weaker, Weaker},
		{"count(xs, it > 1) <= 1", "count(xs, it > 2) <= 3", Weaker, Weaker},
		{"any(xs, it > 1)", "len(xs) > 0", Weaker, Weaker},
		{"any(xs, it > 1)", "count(xs, it > 1) <= 3", Different, Different},
		{"any(xs, it > 1)", "count(xs, it > 1) in [1, 2]", Stronger, Stronger},
		{"none(xs, it > 1)", "count(xs, it > 2) <= 3", Weaker, Weaker},
		{"all(items, .ok)", "all(items, .ok || .lag == 0)", Weaker, Weaker},
		{"any(ys, it == 1)", "any(ys, it == 1 || it == 2)", Weaker, Weaker},
		{"any(ys, it > 2)", "any(ys, it > 1)", Different, Weaker}, // fails for a null before
		// Null.
		{"maybe < 5", "(maybe ?? 0) < 5", Weaker, Weaker},
		{"maybe == 0", "maybe == nil || maybe == 0", Weaker, Weaker},
		{"maybe < 5", "maybe != nil && maybe < 5", Equivalent, Same},
		{"maybe > 0 && keys > 0", "keys > 0 && maybe > 0", Equivalent, Same},
		{"maybe < 5", "maybe != nil", Weaker, Weaker},
		{"maybe < keys", "maybe != nil", Weaker, Weaker},
		{"up && maybe > 0", "maybe > 0", Weaker, Weaker},
		{"maybe > 0", "maybe > 0 || up", Weaker, Weaker},
		{"up", "maybe > 0 || up", Different, Weaker},
		{"steps.a.lag == 0", "!(steps.a.lag > 0)", Equivalent, Same},
		{"ready && up", "(ready ?? false) && up", Equivalent, Same},
		{"up && ready", "(ready ?? true) && up", Weaker, Weaker},
		{"any == 1", "any in [1, 2]", Weaker, Weaker},
		{"xs[0] == 1", "xs[0] < 5", Weaker, Weaker},
	} {
		for mode, want := range map[Mode]Verdict{Plain: tt.plain, Wait: tt.wait} {
			old, new := termOf(t, tt.old, mode), termOf(t, tt.new, mode)
			if got := Compare(old, new); got != want {
				t.Errorf("mode %d: %s => %s is %s, want %s (%s => %s)", mode, tt.old, tt.new, got, want, old, new)
			}
			back := map[Verdict]Verdict{Weaker: Stronger, Stronger: Weaker}
			if want, ok := back[want]; ok && Compare(new, old) != want {
				t.Errorf("mode %d: %s => %s is %s, want %s", mode, tt.new, tt.old, Compare(new, old), want)
			}
		}
	}
}

// TestCompareIsRight draws two conditions, and an environment that must not contradict what Compare says.
func TestCompareIsRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{Plain, Wait}).Draw(t, "mode")
		old := drawProgram(t, "BOOL", boolType, mode)
		new := drawProgram(t, "BOOL", boolType, mode)
		if form := rapid.SampledFrom([]string{"%[2]s", "(%[1]s) && (%[2]s)", "(%[1]s) || (%[2]s)", "(%[2]s) && (%[1]s)", "!((%[1]s) && (%[2]s))", "all(xs, (%[1]s) || it > 1 && (%[2]s))"}).Draw(t, "form"); form != "%[2]s" {
			var failed *Error
			if new, failed = Compile(fmt.Sprintf(form, old.Source, new.Source), termScope, boolType, mode); failed != nil {
				return
			}
		}
		verdict := Compare(old.Term(nil), new.Term(nil))
		for range 30 {
			env := drawEnv(t)
			was, is := outcome(old, env), outcome(new, env)
			if contradicts(verdict, was, is) {
				t.Fatalf("mode %d: %s => %s is %s, but %v => %v where %v\n%s => %s", mode, old.Source, new.Source, verdict, was, is, env, old.Term(nil), new.Term(nil))
			}
		}
	})
}

func contradicts(verdict Verdict, was, is any) bool {
	switch verdict {
	case Same:
		return was != is
	case Equivalent:
		return (was == true) != (is == true)
	case Weaker:
		return was == true && is != true
	case Stronger:
		return is == true && was != true
	}
	return false
}

// A claim is a condition about values that no other claim in it is about.
type claim struct {
	op    string // and, or, not; empty: one comparison
	parts []*claim
	forms []string // of a comparison: ways to write it
	loose string   // what it is when it is loosened
}

// claims are comparisons that are written in several ways, each about another value.
var claims = []claim{
	{forms: []string{"lag == 0", "0 == lag", "!(lag > 0)", "lag < 1", "not (lag != 0)", "lag in [0]"}, loose: "lag < 1000"},
	{forms: []string{"n >= 2", "2 <= n", "!(n < 2)", "n > 1", "not (1 >= n)"}, loose: "n >= 1"},
	{forms: []string{"role == 'master'", `"master" == role`, "role in ['master']", "!(role != 'master')"}, loose: "role in ['master', 'slave']"},
	{forms: []string{"pause < duration('2s')", "duration('2000ms') > pause", "!(pause >= duration('2s'))"}, loose: "pause < duration('5s')"},
	{forms: []string{"len(xs) == 0", "len(xs) < 1", "!(len(xs) > 0)"}, loose: "len(xs) < 3"},
	{forms: []string{"none(items, .lag > 2)", "all(items, it.lag <= 2)", "len(filter(items, #.lag > 2)) == 0", "!any(items, 2 < .lag)"}, loose: "none(items, .lag > 5)"},
	{forms: []string{"rate <= 0.5", "0.50 >= rate", "!(rate > 0.5)"}, loose: "rate < 1"},
	{forms: []string{"steps.a.role startsWith '3.4.'", "hasPrefix(steps.a.role, '3.4.')"}, loose: "steps.a.role startsWith '3.'"},
	{forms: []string{"steps.a.lag == 5", "steps.a.lag in [5]", "5 == steps.a.lag"}, loose: "steps.a.lag in [4, 5]"},
}

func drawClaim(t *rapid.T, from []claim, depth int) *claim {
	if len(from) == 1 || depth == 0 {
		c := from[0]
		return &c
	}
	at := rapid.IntRange(1, len(from)-1).Draw(t, "at")
	switch op := rapid.SampledFrom([]string{"and", "or", "not"}).Draw(t, "op"); op {
	case "not":
		return &claim{op: op, parts: []*claim{drawClaim(t, from, depth-1)}}
	default:
		return &claim{op: op, parts: []*claim{drawClaim(t, from[:at], depth-1), drawClaim(t, from[at:], depth-1)}}
	}
}

// write writes a claim in one of many ways.
func (c *claim) write(t *rapid.T) string {
	draw := func(forms ...string) string { return rapid.SampledFrom(forms).Draw(t, "form") }
	switch c.op {
	case "":
		return "(" + draw(c.forms...) + ")"
	case "not":
		return draw("!", "not ") + c.parts[0].write(t)
	}
	a, b := c.parts[0].write(t), c.parts[1].write(t)
	if rapid.Bool().Draw(t, "swap") {
		a, b = b, a
	}
	and, or := []string{"(%s && %s)", "(%s and %s)", "!(!%s || !%s)"}, []string{"(%s || %s)", "(%s or %s)", "!(!%s && !%s)"}
	if !strings.Contains(a, "steps.a.lag") { // a null is an error in the condition of ?:
		and, or = append(and, "(%s ? %s : false)"), append(or, "(%s ? true : %s)")
	}
	if c.op == "and" {
		return fmt.Sprintf(draw(and...), a, b)
	}
	return fmt.Sprintf(draw(or...), a, b)
}

// loosen changes the comparison with a number, and says whether the whole is weaker for it.
func (c *claim) loosen(i *int) (changed *claim, weaker bool) {
	if c.op == "" {
		*i--
		if *i == -1 {
			return &claim{forms: []string{c.loose}}, true
		}
		return c, false
	}
	changed = &claim{op: c.op}
	for _, p := range c.parts {
		before := *i
		inner, w := p.loosen(i)
		if before >= 0 && *i < 0 {
			weaker = w != (c.op == "not")
		}
		changed.parts = append(changed.parts, inner)
	}
	return changed, weaker
}

func (c *claim) leaves() int {
	n := 0
	if c.op == "" {
		n = 1
	}
	for _, p := range c.parts {
		n += p.leaves()
	}
	return n
}

// TestNoiseIsNoChange writes the same condition in two ways.
func TestNoiseIsNoChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{Plain, Wait}).Draw(t, "mode")
		c := drawClaim(t, rapid.Permutation(claims).Draw(t, "claims"), 4)
		old, new := termOf(t, c.write(t), mode), termOf(t, c.write(t), mode)
		if v := Compare(old, new); v != Same {
			t.Fatalf("%s => %s is %s", old, new, v)
		}
	})
}

// TestLooseningIsSeen loosens one comparison somewhere in a condition, and writes the rest in another way.
func TestLooseningIsSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{Plain, Wait}).Draw(t, "mode")
		c := drawClaim(t, rapid.Permutation(claims).Draw(t, "claims"), 4)
		i := rapid.IntRange(0, c.leaves()-1).Draw(t, "which")
		loose, weaker := c.loosen(&i)
		want := Stronger
		if weaker {
			want = Weaker
		}
		old, new := termOf(t, c.write(t), mode), termOf(t, loose.write(t), mode)
		if v := Compare(old, new); v != want {
			t.Fatalf("%s => %s is %s, want %s", old, new, v, want)
		}
	})
}
