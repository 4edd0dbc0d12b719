package runner

import "time"

// remainder is what is left of a group's time limit. Where an earlier process has cut live traffic over in it, the limit
// goes on from there: what a cut-over holds up, such as writers that wait, ends by the clock and not when a runner is
// back. A resume that came later and went on would promote a replica while clients write to its master.
func (x *run) remainder(s *scope, n *Node, path string, most time.Duration) time.Duration {
	if !x.past.open(path) {
		return most
	}
	var first time.Time
	var walk func([]*Node)
	walk = func(list []*Node) {
		for _, c := range list {
			if was := x.past.live(s.prefix + c.ID); was != nil && was.finished != nil && !was.cut.IsZero() && (first.IsZero() || was.cut.Before(first)) {
				first = was.cut
			}
			walk(c.Children)
		}
	}
	walk(n.Children)
	if first.IsZero() {
		return most
	}
	return max(most-x.clock.Now().Sub(first), 0)
}
