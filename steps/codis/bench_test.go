package codis

import (
	"slices"
	"testing"
	"time"

	"runbook/steps"
)

// BenchmarkSwitch measures the pause of switches of one slot, there and back, under the load of 16 clients: its median and
// its longest, from the first hold to the last route.
func BenchmarkSwitch(b *testing.B) {
	r := newRig(b, "1")
	tr := r.traffic(16, 1000)
	var pauses []time.Duration
	for b.Loop() {
		out, err := r.apply(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		pauses = append(pauses, *out.Pause)
		b.StopTimer()
		if err := r.def.Undo(b.Context(), steps.NewSession(r.env), r.input(), nil); err != nil {
			b.Fatal(err)
		}
		r.until("the destination follows again", func() bool { return r.standing() == "replicating" })
		b.StartTimer()
	}
	slices.Sort(pauses)
	b.ReportMetric(float64(pauses[len(pauses)/2].Milliseconds()), "ms-pause-median")
	b.ReportMetric(float64(pauses[len(pauses)-1].Milliseconds()), "ms-pause-max")
	r.unharmed(tr)
}
