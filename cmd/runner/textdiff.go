package main

import (
	"fmt"
	"strings"
)

// textDiff shows what changed between two texts: lines taken away with -, lines added with
// +, and two lines around them. Beyond diffLimit lines that differ it says only how many.
func textDiff(before, after string) []string { return around(edits(before, after), 2) }

// unifiedDiff is the same as programs read it, with three lines around what differs.
func unifiedDiff(before, after, oldName, newName string) []string {
	all := edits(before, after)
	keep := near(all, 3)
	diff := []string{"--- " + oldName, "+++ " + newName}
	oldLine, newLine := 1, 1
	for i := 0; i < len(all); i++ {
		if !keep[i] {
			oldLine, newLine = oldLine+1, newLine+1
			continue
		}
		var hunk []string
		olds, news := 0, 0
		for ; i < len(all) && keep[i]; i++ {
			if all[i][0] != '+' {
				olds++
			}
			if all[i][0] != '-' {
				news++
			}
			hunk = append(hunk, all[i][:1]+all[i][2:])
		}
		diff = append(append(diff, fmt.Sprintf("@@ -%d,%d +%d,%d @@", oldLine, olds, newLine, news)), hunk...)
		oldLine, newLine = oldLine+olds, newLine+news
		i-- // the line after the hunk is looked at again
	}
	return diff
}

// edits are all lines of two texts: those of both after two spaces, those taken away after -, those added after +.
func edits(before, after string) []string {
	a, b := strings.Split(strings.TrimSuffix(before, "\n"), "\n"), strings.Split(strings.TrimSuffix(after, "\n"), "\n")
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	lines := make([]string, 0, len(a)+len(b))
	for _, line := range a[:head] {
		lines = append(lines, "  "+line)
	}
	lines = append(lines, middle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, line := range a[len(a)-tail:] {
		lines = append(lines, "  "+line)
	}
	return lines
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

// near tells which lines differ or stand within n lines of one that does.
func near(edits []string, n int) []bool {
	keep := make([]bool, len(edits))
	for i, e := range edits {
		if e[0] != ' ' {
			for k := max(i-n, 0); k <= min(i+n, len(edits)-1); k++ {
				keep[k] = true
			}
		}
	}
	return keep
}

// around keeps the edits and n lines on each side of them.
func around(edits []string, n int) []string {
	keep := near(edits, n)
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
