package main

import "strings"

// textDiff shows what changed between two texts: lines taken away with -, lines added with
// +, and two lines around them. Beyond diffLimit lines that differ it says only how many.
func textDiff(before, after string) []string {
	a, b := strings.Split(strings.TrimSuffix(before, "\n"), "\n"), strings.Split(strings.TrimSuffix(after, "\n"), "\n")
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	edits := make([]string, 0, len(a)+len(b))
	for _, line := range a[:head] {
		edits = append(edits, "  "+line)
	}
	edits = append(edits, middle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, line := range a[len(a)-tail:] {
		edits = append(edits, "  "+line)
	}
	return around(edits, 2)
}

// diffLimit bounds the table of the comparison: 2000 by 2000 lines.
const diffLimit = 4_000_000

// middle compares by the longest common subsequence.
func middle(a, b []string) []string {
	var edits []string
	if len(a)*len(b) > diffLimit {
		for _, line := range a {
			edits = append(edits, "- "+line)
		}
		for _, line := range b {
			edits = append(edits, "+ "+line)
		}
		return edits
	}
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			edits = append(edits, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			edits = append(edits, "- "+a[i])
			i++
		default:
			edits = append(edits, "+ "+b[j])
			j++
		}
	}
	return edits
}

// around keeps the edits and n lines on each side of them.
func around(edits []string, n int) []string {
	keep := make([]bool, len(edits))
	for i, e := range edits {
		if e[0] != ' ' {
			for k := max(i-n, 0); k <= min(i+n, len(edits)-1); k++ {
				keep[k] = true
			}
		}
	}
	var shown []string
	for i, e := range edits {
		switch {
		case keep[i]:
			shown = append(shown, e)
		case i > 0 && keep[i-1]:
			shown = append(shown, "  …")
		}
	}
	return shown
}
