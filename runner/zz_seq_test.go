package runner
import ("testing";"time";"fmt")
func TestSeqScale(t *testing.T) {
	for _, n := range []int{10000, 40000} {
		l := newLab(t); l.quiet, l.options = true, unsynced()
		b := time.Now()
		p := l.program(bookHead + "on-failure: rollback\nsteps:\n" + lines(n, `  - {id: s%[1]d, uses: mem.set, with: {key: "k%[1]d", value: 1}}`)+"  - {id: bad, uses: mem.get, with: {key: x}, expect: value == 1}\n")
		c := time.Now()
		r := l.exec(p)
		fmt.Println(n, "load", c.Sub(b), "run+rollback", time.Since(c), r.Status)
	}
	for _, n := range []int{10000, 40000} {
		l := newLab(t); l.quiet, l.options = true, unsynced()
		p := l.program(bookHead + fmt.Sprintf("on-failure: rollback\nvars: {all: \"${{ 1..%d }}\"}\nsteps:\n", n) + `  - {id: s, for-each: vars.all, max-failures: 99999999, on-failure: rollback-item, uses: mem.set, with: {key: "k${{ item }}", value: "${{ item }}"}, undo: [{id: u, uses: mem.set, with: {key: "k${{ item }}", value: 0}}], expect: value % 2 == 0}`+"\n  - {id: bad, uses: mem.get, with: {key: x}, expect: value == 1}\n")
		c := time.Now()
		r := l.exec(p)
		fmt.Println(n, "items", time.Since(c), r.Status)
	}
}
