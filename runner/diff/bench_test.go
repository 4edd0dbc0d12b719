package diff

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkCompare is two runbooks of 2000 steps, the second in other words: what is compared
// by its text and what by its meaning.
func BenchmarkCompare(b *testing.B) {
	const head = "version: 1\nname: bench\ntargets: {r: {kind: redis, addr: \"127.0.0.1:1\"}}\ninputs: {lag: {type: int, default: 0}}\nsteps:\n"
	lines := func(format string) []byte {
		var s strings.Builder
		s.WriteString(head)
		for i := range 667 {
			fmt.Fprintf(&s, format, i)
		}
		return []byte(s.String())
	}
	written := lines("- {id: wait%[1]d, uses: redis.info, target: r, wait-until: lag != nil && lag <= inputs.lag, stable: 5s, timeout: 30m}\n" +
		"- {id: set%[1]d, uses: redis.config-set, target: r, with: {name: maxclients, value: \"${{ 1000 + inputs.lag }}\"}}\n" +
		"- {id: check%[1]d, uses: check, with: {that: steps.wait%[1]d.role == \"master\"}}\n")
	reworded := lines("- {uses: redis.info, id: wait%[1]d, timeout: 1800s, stable: 5000ms, target: r, wait-until: inputs.lag >= lag && nil != lag}\n" +
		"- {with: {value: \"${{ inputs.lag + 1000 }}\", name: maxclients}, target: r, id: set%[1]d, uses: redis.config-set}\n" +
		"- {uses: check, id: check%[1]d, with: {that: '\"master\" == steps.wait%[1]d.role'}}\n")
	renamed := []byte(strings.NewReplacer("id: ", "id: other_", "steps.", "steps.other_").Replace(string(reworded)))
	c := kinds()
	for _, of := range []struct {
		name     string
		old, new []byte
	}{{"same", written, written}, {"reworded", written, reworded}, {"renamed", written, renamed}} {
		b.Run(of.name, func(b *testing.B) {
			for b.Loop() {
				read := func(path string) ([]byte, error) {
					if path == "old.yaml" {
						return of.old, nil
					}
					return of.new, nil
				}
				for _, ch := range Compare(side(b, c, "old.yaml", read), side(b, c, "new.yaml", read)) {
					if ch.Rule != "renamed" {
						b.Fatal(ch)
					}
				}
			}
		})
	}
}
