package expression

import "testing"

// BenchmarkTerm is the term of an expression of 60 characters.
func BenchmarkTerm(b *testing.B) {
	p, failed := Compile(`role == "master" && !(steps.a.lag > 1024) && len(xs) in [1, 2]`, termScope, boolType, Wait)
	if failed != nil {
		b.Fatal(failed)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Term(nil)
	}
}

func BenchmarkTermKey(b *testing.B) {
	term := termOf(b, `role == "master" && !(steps.a.lag > 1024) && len(xs) in [1, 2]`, Wait)
	b.ReportAllocs()
	for b.Loop() {
		_ = term.Key()
	}
}

func BenchmarkCompareTerms(b *testing.B) {
	old := termOf(b, `role == "master" && !(steps.a.lag > 1024) && len(xs) in [1, 2]`, Wait)
	new := termOf(b, `(up || role == "master") && !(steps.a.lag > 2048) && len(xs) in [1, 2, 3]`, Wait)
	b.ReportAllocs()
	for b.Loop() {
		if Compare(old, new) != Weaker {
			b.Fatal("not weaker")
		}
	}
}
