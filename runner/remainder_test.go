package runner

import (
	"testing"
	"testing/synctest"
	"time"
)

// What a cut-over holds up ends by the clock: a resume that comes after the group's time
// starts nothing more in it and goes back, one that comes in time goes on.
func TestTimeOfACutOverGoesOnAcrossProcesses(t *testing.T) {
	const children = `
    steps:
      - {id: hold, uses: mem.add, effect: cutover, with: {key: hold, value: 1}, undo: [{id: release, uses: mem.set, with: {key: hold, value: 0}}]}
      - {id: equal, uses: mem.get, with: {key: ready}, wait-until: value == 1, timeout: 1h}
      - {id: promote, uses: mem.set, with: {key: promoted, value: 1}}
`
	for _, c := range []struct {
		name, group string
		away        time.Duration
		world       string
		want        Status
	}{
		{"in time", children, 5 * time.Second, `{"hold":1,"promoted":1,"ready":1}`, Succeeded},
		{"too late", children, time.Minute, `{"hold":0,"ready":1}`, Failed},
		{"too late, with an undo of its own", "\n    undo: [{id: back, uses: mem.set, with: {key: back, value: 1}}]" + children, time.Minute, `{"back":1,"hold":1,"ready":1}`, Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				p := l.program(bookHead + `
steps:
  - id: switch
    timeout: 30s
    on-failure: rollback` + c.group)
				l.interrupt(p, 2*time.Second)
				time.Sleep(c.away)
				l.w.value["ready"] = 1
				r := l.resume()
				l.end(r, c.want)
				if got := l.w.state(); got != c.world {
					t.Errorf("world %s, want %s (%v)", got, c.world, r.Err)
				}
			})
		})
	}
}
