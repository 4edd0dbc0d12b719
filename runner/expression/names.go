package expression

// nearest is the name that was probably meant; empty if none is near enough.
func nearest(name string, names []string) string {
	best, distance := "", 1+max(1, len(name)/3)
	for _, n := range names {
		d := edits(name, n)
		if 2*d > len(name) { // x is not a slip for q
			continue
		}
		if d < distance || d == distance && best != "" && n < best {
			best, distance = n, d
		}
	}
	return best
}

// edits counts the letters to insert, remove, replace or swap with the next one, to make b of a.
func edits(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, above := make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range above {
		above[j] = j
	}
	for i := range x {
		row := make([]int, len(y)+1)
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			row[j+1] = min(above[j]+cost, above[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above = above, row
	}
	return above[len(y)]
}
