package runner

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func markdownOf(t *testing.T, text string) string {
	t.Helper()
	plan, _ := planOf(t, text, Selection{})
	var b strings.Builder
	if err := plan.WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var (
	codeSpan = regexp.MustCompile("``.*?``|`[^`]*`")
	escaped  = regexp.MustCompile(`\\[[:punct:]]`)
	fencedIn = regexp.MustCompile("(?ms)^(`{3,})[a-z]+\n.*?\n`{3,}$")
)

// What a runbook says cannot leave its place: a cell, a fence, a summary.
func TestPlanMarkdownHoldsNastyTexts(t *testing.T) {
	t.Parallel()
	text := markdownOf(t, strings.ReplaceAll(`version: 1
name: nasty
description: "- <img src=x> see #77, ask @ana | [a](b) | *c* ~~d~~\n\n# head\n´´´"
inputs:
  pipe: {type: string, default: "a | b ´ c <b>"}
  lines: {type: string, default: "one\ntwo"}
steps:
  - id: s
    name: "</details> @ana #77"
    uses: check
    confirm: "really | <script> @ana?"
    with: {that: 'inputs.pipe != "´´´´" && inputs.lines != "</code>"'}
  - id: each
    for-each: 'inputs.pipe == "</summary>" ? ["a"] : ["b"]'
    uses: check
    with: {that: item != ""}
`, "´", "`"))
	outside := fencedIn.ReplaceAllString(text, "")
	for line := range strings.SplitSeq(outside, "\n") {
		if strings.HasPrefix(line, "|") {
			if cells := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); cells != 3 && cells != 4 {
				t.Errorf("%d bars in %s", cells, line)
			}
		}
		plain := escaped.ReplaceAllString(codeSpan.ReplaceAllString(line, ""), "")
		for _, bad := range []string{"<img", "<script", "<b>", "</code>: for each item of inputs.pipe == \"<", "@ana", "#77", "](b)", "~~"} {
			if strings.Contains(plain, bad) {
				t.Errorf("%s in %s", bad, line)
			}
		}
	}
	for _, pair := range [][2]string{{"<details>", "</details>"}, {"<summary>", "</summary>"}} {
		if strings.Count(outside, pair[0]) != 2 || strings.Count(outside, pair[1]) != 2 {
			t.Errorf("%s is not balanced:\n%s", pair[0], outside)
		}
	}
	if !strings.Contains(text, "\n`````text\n") {
		t.Errorf("a fence is not longer than what it holds:\n%s", text)
	}
}

// A comment has room for 65,536 characters: reads go first, risks never.
func TestPlanMarkdownFitsIntoAComment(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("version: 1\nname: long\nsteps:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "  - {id: look%[1]d, name: %[2]q, uses: check, with: {that: 1 < 2}}\n", i, strings.Repeat("word ", 20))
	}
	b.WriteString("  - {id: last, uses: exec, effect: destroy, confirm: really, with: {command: [rm, all]}}\n")
	text := markdownOf(t, b.String())
	if len(text) > commentLimit || len(text) < commentLimit*9/10 {
		t.Errorf("%d bytes", len(text))
	}
	for _, want := range []string{"| gate | `last` | one person |", "| **no way back** | `last` |", "<summary><code>last</code>: exec, destroy</summary>", "\n  confirm: really\n",
		"left out, since a comment has room for 65536 characters", "`runner plan ", "<code>look0</code>"} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing says %s", want)
		}
	}
}
