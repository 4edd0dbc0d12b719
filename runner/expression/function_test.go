package expression

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/expr-lang/expr"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestSlotOf has the answers of Pika 3.4.0 to slotshashkey, with 1024 slots.
func TestSlotOf(t *testing.T) {
	for key, want := range map[string]int{
		"key:1": 1004, "{tag1408}str0": 1, "abc{}def": 0, "a{b}c": 1017, "{b}": 1017,
		"tag1408": 1, // Pika 2.3.6
	} {
		if got := compiled(t, fmt.Sprintf("slot_of(%q, 1024)", key), intType, Plain).root.run(&frame{}); got != want {
			t.Errorf("%s: %v, want %d", key, got, want)
		}
	}
	for key, tag := range map[string]string{"a{b}c}": "b", "a}b{c}": "c", "a{b": "a{b", "a{{b}}": "{b", "{}": "", "x": "x"} {
		if got := hashTag(key, true); got != tag {
			t.Errorf("%s: tag %q, want %q", key, got, tag)
		}
	}
}

// TestKeyslot has the vectors of the Redis Cluster specification and of CLUSTER KEYSLOT's page.
func TestKeyslot(t *testing.T) {
	for key, want := range map[string]int{"123456789": 0x31C3, "somekey": 11058, "foo{hash_tag}": 2515, "bar{hash_tag}": 2515, "foo": 12182} {
		if got := compiled(t, fmt.Sprintf("keyslot(%q)", key), intType, Plain).root.run(&frame{}); got != want {
			t.Errorf("%s: %v, want %d", key, got, want)
		}
	}
	if hashTag("foo{}{bar}", false) != "foo{}{bar}" {
		t.Error("an empty tag is no tag in a Redis Cluster")
	}
}

func TestParsing(t *testing.T) {
	for _, s := range []string{"", "x", "1", "-", "d", "1d1d", "--1s", "1d-1h", "1e9d", "106752d", "1 s", "nand"} {
		if d, err := parseDuration(s); err == nil {
			t.Errorf("duration %q is %s", s, d)
		}
	}
	for _, s := range []string{"", "MB", "-1k", "1.5b", "1x", "1e3", "0x1", "1..5k", "9999999tb", "1 2"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("size %q is %d", s, n)
		}
	}
	for _, s := range []string{"", ",", "1,", "-1", "3-1", "1-", "1-2-3", "x", "65536", "0-99999999999999999999"} {
		if l, err := parseRanges(s); err == nil {
			t.Errorf("slots %q are %v", s, l)
		}
	}
	for _, s := range []string{"", "x", "1.", "1.x", "1..2", "-1"} {
		if v, err := parseVersion(s); err == nil {
			t.Errorf("version %q is %v", s, v)
		}
	}
	for s, want := range map[string]time.Duration{"7d": 168 * time.Hour, "0.5d": 12 * time.Hour, "+1s": time.Second, "0": 0, "-1d1h": -25 * time.Hour} {
		if d, err := parseDuration(s); d != want || err != nil {
			t.Errorf("duration %q is %s, %v, want %s", s, d, err, want)
		}
	}
}

func TestRangesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := slotSet(rapid.SliceOfN(rapid.IntRange(0, 40), 1, 30).Draw(t, "slots"))
		back, err := parseRanges(formatRanges(slots))
		if diff := cmp.Diff(slots, back); diff != "" || err != nil {
			t.Fatalf("%v %s", err, diff)
		}
	})
}

// TestWavesModel: waves are the list itself, cut; the first have the sizes that were asked for.
func TestWavesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := ints(1, rapid.IntRange(0, 100).Draw(t, "length"))
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.Just[any](1), rapid.Just[any](7), rapid.Just[any]("10%"), rapid.Just[any]("33.3%"), rapid.Just[any]("100%")), 1, 4).Draw(t, "sizes")
		most := rapid.IntRange(1, 50).Draw(t, "most")
		v, err := waves(&frame{}, []any{list, sizes, most})
		if err != nil {
			t.Fatal(err)
		}
		var all []any
		for i, wave := range v.([]any) {
			wave := wave.([]any)
			if len(wave) == 0 || len(wave) > most {
				t.Fatalf("wave %d has %d elements", i, len(wave))
			}
			all = append(all, wave...)
		}
		if diff := cmp.Diff(list, all); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestLimits: nothing that fits in a source exhausts the machine; every one of these ends in an error, soon
// and in little memory.
func TestLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	big := strings.Repeat("x", 1<<20)
	env := testEnv()
	env["addr"] = big
	env["q"] = ints(0, 50_000)
	env["words"] = []any{big, big}
	nested := "lag"
	for range 14 {
		nested = "(1 < " + nested + " < 2 ? 1 : 2)"
	}
	for _, source := range []string{
		`repeat("x", 1000000000)`,
		`repeat(repeat("x", 100000), 100000)`,
		`repeat(addr, 1 << 40)`,
		`repeat("", 9223372036854775807) + repeat(addr, 9223372036854775807)`,
		`1..1000000000000`,
		`-9223372036854775807..9223372036854775807`,
		`0..9223372036854775807`,
		`lag..9223372036854775807`,
		strings.Repeat("addr + ", 100) + "addr",
		`reduce(1..1000, #acc + #acc, "x")`,
		`map(q, addr + "x")`,
		`map(1..100, replace(addr, "x", "xxxxxxxx"))`,
		`replace(addr, "", addr)`,
		`map(1..100, upper(addr))`,
		`map(1..100, split(addr, ""))`,
		`map(1..100, join(words, addr))`,
		`map(1..100, toBase64(addr))`,
		`map(1..100, json(addr))`,
		`map(1..100, string([addr]))`,
		`map(1..100, addr[1:])`,
		`map(q, map(q, it))`,
		`all(q, all(q, it >= 0))`,
		`all(q, it in [1, 2, 3] or any(q, it < 0) or true)`,
		`all(q, len(sort(q)) > 0)`,
		`all(q, len(uniq(q)) > 0)`,
		`all(q, len(concat(q, q)) > 0)`,
		`all(q, len(flatten([q])) > 0)`,
		`all(q, q == [0] or q == q)`,
		`all(q, addr matches "x*y" or addr matches "(x+)+y" or true)`,
		`all(q, addr contains "y" or true)`,
		`addr matches addr`,
		`reduce(1..40, concat(#acc, #acc), [1])`,
		`reduce(1..60, [#acc, #acc], fromJSON("1"))`,
		`json(reduce(1..60, [#acc, #acc], fromJSON("1")))`,
		`flatten(reduce(1..60, [#acc, #acc], fromJSON("1")))`,
		`reduce(1..60, [#acc, #acc], fromJSON("1")) == reduce(1..60, [#acc, #acc], fromJSON("1"))`,
		`json(reduce(1..60, {a: #acc, b: #acc}, fromJSON("1")))`,
		`reduce(1..100000, [#acc], fromJSON("1"))`,
		`flatten(reduce(1..1000000, [#acc], fromJSON("1")))`,
		`reduce(1..1000000, [#acc], fromJSON("1")) == reduce(1..1000000, [#acc], fromJSON("1"))`,
		`max(reduce(1..1000000, [#acc], fromJSON("1")))`,
		`json(map(q, addr))`,
		`map(q, addr)`,
		`waves(q, [1, 1], 1) == chunks(q, 1) and all(q, len(waves(q, [1])) > 0)`,
		`groupBy(map(1..100, addr + string(it)), it)`,
		nested,
		strings.Repeat("(", 9000),
		strings.Repeat("(", 4000) + strings.Repeat(")", 4000),
		strings.Repeat("!", 8000) + "connected",
		strings.Repeat("[", 8000),
		strings.Repeat("-", 8000) + "1",
		strings.Repeat("1+", 4000) + "1",
		strings.Repeat("a?", 4000),
		strings.Repeat("lag<", 2000) + "1",
	} {
		name := source[:min(50, len(source))]
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			p, failed := Compile(source, testScope, nil, Plain)
			if failed == nil {
				if v, err := p.Eval(env); err == nil {
					t.Errorf("no error, but %.50v", v)
				}
			}
			runtime.ReadMemStats(&after)
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %s", d)
			}
			if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 512 {
				t.Errorf("made %d MiB", made)
			}
		})
	}
	if _, err := compiled(t, "map(q, addr + 'x')", nil, Plain).Eval(env); !errors.Is(err, ErrLimit) {
		t.Errorf("the limit is not told: %v", err)
	}
	if _, failed := Compile(`repeat("x", 1000000000)`, testScope, nil, Plain); failed == nil || failed.Rule != RuleLimit {
		t.Errorf("a constant bomb: %v", failed)
	}
}

// TestRealisticWork: what a migration of a whole cluster asks for is within the limits.
func TestRealisticWork(t *testing.T) {
	env := testEnv()
	env["q"] = ints(0, 16383)
	env["inputs"] = map[string]any{"slots": ints(0, 16383), "min": 1}
	for _, source := range []string{
		"all(q, it in inputs.slots)",
		"len(waves(inputs.slots, [1, '10%', '100%'], 64)) > 0",
		"len(filter(q, it % 2 == 0)) == 8192 and ranges(q) == '0-16383'",
		"len(uniq(q)) == 16384",
	} {
		if v, err := compiled(t, source, boolType, Plain).Eval(env); v != true || err != nil {
			t.Errorf("%s: %v %v", source, v, err)
		}
	}
}

// TestDeterministic calls every function again and again: nothing may depend on time, chance or order.
func TestDeterministic(t *testing.T) {
	samples := map[string]string{
		"slots": `slots("0-3")`, "ranges": "ranges(q)", "chunks": "chunks(q, 2)", "waves": "waves(q, [1])", "slot_of": "slot_of(addr, 1024)",
		"keyslot": "keyslot(addr)", "version_gte": `version_gte("1", "2")`, "host": "host(addr)", "port": "port(addr)", "addr": "addr(addr, 80)",
		"duration": `duration("1d")`, "size": `size("1k")`, "percent": "percent(lag, 7)", "json": "json(steps)", "string": "string(steps)",
		"abs": "abs(lag)", "ceil": "ceil(rate)", "floor": "floor(rate)", "round": "round(rate)", "int": "int(rate)", "float": "float(lag)",
		"max": "max(q)", "min": "min(q)", "mean": "mean(q)", "median": "median(q)", "bitand": "bitand(lag, 1)", "bitor": "bitor(lag, 1)",
		"bitxor": "bitxor(lag, 1)", "bitnand": "bitnand(lag, 1)", "bitshl": "bitshl(lag, 1)", "bitshr": "bitshr(lag, 1)", "bitushr": "bitushr(lag, 1)",
		"bitnot": "bitnot(lag)", "type": "type(q)", "upper": "upper(addr)", "lower": "lower(addr)", "trim": "trim(addr)", "trimPrefix": "trimPrefix(addr)",
		"trimSuffix": `trimSuffix(addr, "9")`, "split": `split(addr, ":")`, "splitAfter": `splitAfter(addr, ":", 2)`, "replace": `replace(addr, "1", "2", 1)`,
		"repeat": "repeat(addr, 2)", "join": "join(words)", "indexOf": `indexOf(addr, ":")`, "lastIndexOf": `lastIndexOf(addr, ".")`,
		"hasPrefix": "hasPrefix(addr, addr)", "hasSuffix": "hasSuffix(addr, addr)", "toBase64": "toBase64(addr)", "fromBase64": "fromBase64(toBase64(addr))",
		"fromJSON": "fromJSON(json(steps))", "len": "len(facts)", "first": "first(q)", "last": "last(q)", "get": "get(q, 0)", "take": "take(q, 1)",
		"fromPairs": "fromPairs([[addr, 1], ['b', 2]])", "reverse": "reverse(q)", "uniq": "uniq(q)", "concat": "concat(q, q)", "flatten": "flatten([q])",
		"sort": "sort(words)", "all": "all(q, it > 0)", "any": "any(q, it > 0)", "none": "none(q, it > 0)", "one": "one(q, it > 2)", "filter": "filter(q, it > 1)",
		"map": "map(q, it)", "count": "count(q, it > 1)", "sum": "sum(q)", "find": "find(q, it > 1)", "findIndex": "findIndex(q, it > 1)",
		"findLast": "findLast(q, it > 1)", "findLastIndex": "findLastIndex(q, it > 1)", "groupBy": "groupBy(words, it)", "sortBy": "sortBy(q, -it)", "reduce": "reduce(q, #acc - it)",
	}
	for _, f := range Functions() {
		source := samples[f.Name]
		if source == "" {
			t.Errorf("%s has no sample", f.Name)
			continue
		}
		if !strings.HasPrefix(f.Signature, f.Name+"(") || !strings.HasSuffix(f.Doc, ".") {
			t.Errorf("%s: %q %q", f.Name, f.Signature, f.Doc)
		}
		p := compiled(t, source, nil, Plain)
		first, err := p.Eval(testEnv())
		if err != nil {
			t.Errorf("%s: %v", source, err)
		}
		for range 20 {
			again, err := p.Eval(testEnv())
			if diff := cmp.Diff(first, again); diff != "" || err != nil {
				t.Fatalf("%s: %v %s", source, err, diff)
			}
		}
		delete(samples, f.Name)
	}
	if len(samples) > 0 {
		t.Errorf("no such functions: %v", sortedKeys(samples))
	}
	for name := range refused {
		if _, failed := Compile(name+"(1)", testScope, nil, Plain); failed == nil || failed.Rule != RuleUnknownFunction {
			t.Errorf("%s: %v", name, failed)
		}
	}
}

// TestInputsStay: no function changes the lists and maps that it is given.
func TestInputsStay(t *testing.T) {
	env := testEnv()
	for _, source := range []string{"sort(q)", "reverse(q)", "sortBy(q, it)", "concat(take(q, 1), [9])", "median(q)", "concat(q[:1], [9])",
		"map(chunks(q, 2), concat(it, [9]))", "uniq(q)", "groupBy(words, it)", "slots(q)", "flatten([q, q])"} {
		if _, err := compiled(t, source, nil, Plain).Eval(env); err != nil {
			t.Errorf("%s: %v", source, err)
		}
		if diff := cmp.Diff(testEnv(), env); diff != "" {
			t.Fatalf("%s: %s", source, diff)
		}
	}
}

func TestConcurrent(t *testing.T) {
	p := compiled(t, "let n = lag; sum(map(q, it * n)) + reduce(q, #acc + it, 0)", intType, Plain)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				env := testEnv()
				env["lag"] = i
				if v, err := p.Eval(env); v != 6*i+6 || err != nil {
					t.Errorf("%v %v, want %d", v, err, 6*i+6)
				}
				p.Term(nil)
			}
		})
	}
	wg.Wait()
}

// TestSameAsExpr draws expressions and compares their values with those that expr's own machine gives them.
func TestSameAsExpr(t *testing.T) {
	scope := &Scope{Vars: map[string]*Type{"i": intType, "f": floatType, "s": stringType, "b": boolType, "l": intsType, "d": durationType,
		"o": object(map[string]*Type{"n": intType, "x": listOf(object(map[string]*Type{"k": stringType, "v": intType}))})}}
	env := map[string]any{"i": 3, "f": 0.5, "s": "abc", "b": true, "l": []any{3, 1, 2}, "d": time.Second,
		"o": map[string]any{"n": 4, "x": []any{map[string]any{"k": "p", "v": 1}, map[string]any{"k": "q", "v": 2}}}}
	leaves := map[string][]string{
		"int":    {"i", "o.n", "1", "7", "-2", "l[0]", "len(l)", "len(s)", "o.x[1].v", "#index"},
		"float":  {"f", "2.5", "float(i)"},
		"string": {"s", `"b"`, "o.x[0].k", "''"},
		"bool":   {"b", "true", "false"},
		"list":   {"l", "[]", "[i, 2]", "1..3", "map(o.x, .v)"},
		"dur":    {"d", `duration("1m")`},
	}
	grammar := map[string][]string{
		"int": {"INT + INT", "INT - INT", "INT * INT", "INT % 7", "-INT", "sum(LIST)", "len(LIST)", "BOOL ? INT : INT", "abs(INT)", "int(FLOAT)", "count(LIST, # > INT)",
			"reduce(LIST, #acc + #, INT)", "first(LIST) ?? INT", "find(LIST, # < INT) ?? INT", "let v = INT; v * v", "indexOf(STRING, STRING)", "bitand(INT, INT)", "sum(LIST, # * 2)"},
		"float":  {"FLOAT + INT", "FLOAT * FLOAT", "INT / 4", "FLOAT - FLOAT", "round(FLOAT)", "INT ** 2", "mean(1, FLOAT)", "if BOOL { FLOAT } else { FLOAT }"},
		"string": {"STRING + STRING", "upper(STRING)", "BOOL ? STRING : STRING", "join(split(STRING, 'b'), '-')", "trim(STRING)", "replace(STRING, 'a', 'zz')", "STRING[1:2]", "repeat(STRING, 2)", "string(INT)"},
		"bool": {"INT < INT", "INT >= FLOAT", "INT == INT", "STRING == STRING", "LIST == LIST", "BOOL && BOOL", "BOOL or BOOL", "!BOOL", "not BOOL", "INT in LIST", "INT not in LIST",
			"STRING contains STRING", "STRING startsWith STRING", "STRING matches '^a'", "all(LIST, # > INT)", "any(LIST, # == INT)", "none(LIST, BOOL)", "one(LIST, # == 1)",
			"DUR < DUR", "DUR != DUR", "INT < INT < INT", "BOOL == BOOL", "(find(LIST, # > INT) ?? 0) > 1", "findIndex(LIST, # > INT) == nil"},
		"list": {"filter(LIST, # > INT)", "map(LIST, # + INT)", "sort(LIST)", "reverse(LIST)", "LIST[1:]", "concat(LIST, LIST)", "uniq(LIST)", "take(LIST, 2)", "flatten([LIST, LIST])",
			"sortBy(LIST, -#)", "map(filter(LIST, # > 1), # * 2)", "[INT, INT]", "sort(LIST, 'desc')", "LIST | map(# - INT)", "(INT % 5)..(INT % 9)"},
		"dur": {"DUR + DUR", "DUR - DUR", "DUR * 2"},
	}
	nonterminals := map[string]string{"INT": "int", "FLOAT": "float", "STRING": "string", "BOOL": "bool", "LIST": "list", "DUR": "dur"}
	var draw func(t *rapid.T, kind string, depth int, inside bool) string
	draw = func(t *rapid.T, kind string, depth int, inside bool) string {
		if depth == 0 {
			leaf := rapid.SampledFrom(leaves[kind]).Draw(t, "leaf")
			if leaf == "#index" {
				leaf = "5"
			}
			return leaf
		}
		form := rapid.SampledFrom(grammar[kind]).Draw(t, "form")
		var b strings.Builder
		for len(form) > 0 {
			end := strings.IndexFunc(form, func(r rune) bool { return r < 'A' || r > 'Z' })
			if end < 0 {
				end = len(form)
			}
			if inner := nonterminals[form[:end]]; inner != "" {
				fmt.Fprintf(&b, "(%s)", draw(t, inner, depth-1, inside))
				form = form[end:]
				continue
			}
			b.WriteByte(form[0])
			form = form[1:]
		}
		return b.String()
	}
	rapid.Check(t, func(t *rapid.T) {
		source := draw(t, rapid.SampledFrom(sortedKeys(grammar)).Draw(t, "kind"), rapid.IntRange(0, 3).Draw(t, "depth"), false)
		if strings.Count(source, "let v") > 1 {
			return // expr refuses to declare it twice, and so does this package
		}
		p, failed := Compile(source, scope, nil, Plain)
		if failed != nil {
			if failed.Rule == RuleLimit || strings.Contains(failed.Message, "repeat") {
				return
			}
			t.Fatalf("%s: %s", source, failed.Message)
		}
		want, wantErr := expr.Eval(source, env)
		got, err := p.Eval(env)
		if err != nil || wantErr != nil {
			if err == nil || wantErr == nil && !strings.Contains(err.Error(), "64 bits") {
				t.Fatalf("%s: got %v %v, expr %v %v", source, got, err, want, wantErr)
			}
			return
		}
		if !equal(&frame{}, got, Value(want)) {
			t.Fatalf("%s: got %#v, expr %#v", source, got, want)
		}
		if is, ok := conforms(got, p.Type); !ok {
			t.Fatalf("%s: %v is %s, not %s", source, got, is, p.Type)
		}
	})
}

func FuzzCompile(f *testing.F) {
	for _, source := range []string{"connected && lag == 0", "steps.a?.lag ?? 0", "all(q, it in [1, 2])", "a ? b : c", "let x = 1; x", "{a: [1..3]}",
		"lag = 1", "x | y", "5s", "'", "é.b[", "if a { 1 } else { 2 }", "not x in y", "1 < lag < 3", "#", "a;b", "::len(q)", "q[1:][0]", "-1 ** 2", "${{", "/* */ 1", "\xff\xfe+1"} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		for _, mode := range []Mode{Plain, Wait} {
			for _, want := range []*Type{nil, boolType} {
				p, failed := Compile(source, testScope, want, mode)
				n := len([]rune(source))
				if failed != nil {
					if failed.Offset < 0 || failed.End < failed.Offset || failed.End > n || failed.Rule == "" || failed.Message == "" || strings.Contains(failed.Message, "\n") {
						t.Fatalf("%q: %+v", source, failed)
					}
					if strings.Contains(failed.Message, "cannot be compiled") {
						t.Fatalf("%q: %s", source, failed.Message)
					}
					continue
				}
				for _, r := range p.Refs {
					if r.Offset < 0 || r.End > n || r.Offset >= r.End || len(r.Path) != len(r.Offsets) {
						t.Fatalf("%q: %+v", source, r)
					}
				}
				env := testEnv()
				_, err := p.Eval(env)
				var crash runtime.Error
				if errors.As(err, &crash) || err != nil && strings.Contains(err.Error(), "cannot be evaluated") {
					t.Fatalf("%q: %v", source, err)
				}
				p.Parts(env)
				p.Distances(env)
				p.Constant()
				term := p.Term(func(path []string) (Term, bool) { return Reference(path), len(path)%2 == 0 })
				if same := p.Term(nil); Compare(term, same) != Same || term.String() != same.String() || term.Key() != same.Key() {
					t.Fatalf("%q: %s is not %s", source, term, same)
				}
			}
		}
	})
}

const benchmarkSource = "connected && lag == 0 && steps.a.keys > inputs.min"

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(benchmarkSource, testScope, boolType, Wait); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEval(b *testing.B) {
	p, env := compiled(b, benchmarkSource, boolType, Wait), testEnv()
	env["lag"] = 0
	b.ReportAllocs()
	for b.Loop() {
		if v, err := p.Eval(env); v != true || err != nil {
			b.Fatal(v, err)
		}
	}
}

// BenchmarkExpr is what expr's own machine takes for the same.
func BenchmarkExpr(b *testing.B) {
	env := testEnv()
	env["lag"] = 0
	p, err := expr.Compile(benchmarkSource, expr.Env(env))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if v, err := expr.Run(p, env); v != true || err != nil {
			b.Fatal(v, err)
		}
	}
}

func BenchmarkMembership(b *testing.B) {
	env := testEnv()
	env["q"] = ints(0, 16383)
	env["inputs"] = map[string]any{"slots": ints(0, 16383), "min": 1}
	p := compiled(b, "all(q, it in inputs.slots)", boolType, Plain)
	for b.Loop() {
		if v, err := p.Eval(env); v != true || err != nil {
			b.Fatal(v, err)
		}
	}
}
