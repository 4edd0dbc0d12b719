package runner

import "time"

// remainder is what is left of a group's time limit. Where an earlier process has cut live traffic over in it, the limit
// goes on from there: what a cut-over holds up, such as writers that wait, ends by the clock and not when a runner is
// back. A resume that came later and went on would promote a replica while clients write to its master.
func (x *run) remainder(s *scope, n *Node, path string, most time.Duration) time.Duration {
	if n.Shape != Group || !x.past.open(path) || !x.unfinished(s, n.Children) {
		return most
	}
	first := x.cutAt(s, n.Children)
	if first.IsZero() {
		return most
	}
	return max(most-x.clock.Now().Sub(first), 0)
}

func (x *run) unfinished(s *scope, nodes []*Node) bool {
	for _, c := range nodes {
		if was := x.past.live(s.prefix + c.ID); was == nil || was.finished == nil {
			return true
		}
	}
	return false
}

// cutAt is when the first cut-over among finished steps was begun.
func (x *run) cutAt(s *scope, nodes []*Node) time.Time {
	var first time.Time
	earlier := func(at time.Time) {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	for _, c := range nodes {
		if was := x.past.live(s.prefix + c.ID); was != nil && was.finished != nil {
			earlier(was.cut)
		}
		earlier(x.cutAt(s, c.Children))
	}
	return first
}
