package runner

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// mermaidOf draws a runbook's plan.
func mermaidOf(t *testing.T, text string, depth int) string {
	t.Helper()
	plan, _ := planOf(t, text, Selection{})
	return mermaidOfPlan(t, plan, depth)
}

func mermaidOfPlan(t *testing.T, plan *Plan, depth int) string {
	t.Helper()
	var b strings.Builder
	if err := plan.Graph(depth).WriteMermaid(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// drawn asserts that lines are in a graph, whatever their indentation.
func drawn(t *testing.T, graph string, lines ...string) {
	t.Helper()
	there := map[string]bool{}
	for line := range strings.SplitSeq(graph, "\n") {
		there[strings.TrimSpace(line)] = true
	}
	for _, line := range lines {
		if !there[line] {
			t.Errorf("there is no line %s", line)
		}
	}
	if t.Failed() {
		t.Log(graph)
	}
}

const graphBook = head + `inputs:
  nodes: {type: list, default: [x, y, z, w]}
  fast: {type: bool, default: false}
steps:
  - {id: one, uses: redis.info, target: a}
  - {id: two, uses: redis.info, target: b}
  - {id: three, uses: redis.info, targets: [a, b]}
  - {id: off, uses: redis.config-set, target: a, with: {name: x, value: "1"}, when: inputs.fast}
  - id: both
    parallel: true
    steps:
      - id: left
        steps:
          - {id: set, uses: redis.config-set, target: a, with: {name: x, value: "1"}}
          - {id: wait, uses: redis.info, target: a, wait-until: connected, timeout: 1m}
      - id: right
        uses: redis.config-set
        target: b
        with: {name: x, value: "1"}
        rescue:
          - {id: mend, uses: redis.info, target: b}
  - id: each
    for-each: inputs.nodes
    batch: [1, 2]
    uses: exec
    effect: cutover
    undo: none
    why: x
    with: {command: [go, "${{ item }}"]}
    confirm: {message: sure, approvals: 2}
    after-batch:
      - {id: rest, uses: redis.info, target: a}
  - {id: ask, uses: approve, with: {message: "go?"}}
  - {id: gone, uses: exec, effect: destroy, point-of-no-return: true, undo: none, why: x, with: {command: [rm]}}
finally:
  - {id: last, uses: redis.info, target: a}
`

func TestGraph(t *testing.T) {
	drawn(t, mermaidOf(t, graphBook, GraphDepth),
		`s_one_reads("3 reads in a row<br/>one, two, three")`,
		`s_off["off<br/>redis.config-set on a<br/>skipped: when: inputs.fast is false"]`,
		`subgraph s_both["both"]`,
		`s_set["set<br/>redis.config-set on a"]`,
		`s_wait("wait<br/>redis.info on a<br/>waits until connected")`,
		`s_set --> s_wait`,
		`s_right -.->|"if it fails"| s_mend`,
		`s_both --> s_each_gate`,
		`s_each_gate{"2 people"}`,
		`s_each_gate --> s_each`,
		`subgraph s_each["each · exec · 4 items of inputs.nodes, 3 waves"]`,
		`s_ask{"ask<br/>1 person"}`,
		`s_gone[/"gone<br/>exec<br/>point of no return"\]`,
		`s_gone_gate ==> s_gone`,
		`s_gone -.->|"whatever happened"| s_finally`,
		`class s_off skipped`,
		`class s_mend,s_finally dashed`,
		`legend_destroy[/"destroy: something is gone"\]`,
	)
}

// What is deeper than asked for is one box that says what it stands for.
func TestGraphDepth(t *testing.T) {
	graph := mermaidOf(t, graphBook, 0)
	drawn(t, graph,
		`s_both["both<br/>3 steps: 1 read, 2 write"]`,
		`s_each{{"each<br/>exec<br/>4 items of inputs.nodes, 3 waves<br/>4 steps: 4 cutover"}}`,
	)
	if strings.Contains(graph, `s_set[`) {
		t.Errorf("what is in both is drawn:\n%s", graph)
	}
	one := mermaidOf(t, graphBook, 1)
	drawn(t, one, `subgraph s_both["both"]`, `s_left["left<br/>2 steps: 1 read, 1 write"]`)
}

// A runbook of fifty steps is a graph that fits on a page or two.
func TestGraphOfFiftySteps(t *testing.T) {
	var b strings.Builder
	b.WriteString(head + "steps:\n")
	for i := range 50 {
		if i%10 == 0 {
			fmt.Fprintf(&b, "  - {id: s%d, uses: redis.config-set, target: a, with: {name: x, value: \"1\"}}\n", i)
		} else {
			fmt.Fprintf(&b, "  - {id: s%d, uses: redis.info, target: a}\n", i)
		}
	}
	boxes := regexp.MustCompile(`(?m)^  s_\w+[\[({]`).FindAllString(mermaidOf(t, b.String(), GraphDepth), -1)
	if len(boxes) != 10 {
		t.Errorf("%d boxes for 5 writes with 9 reads after each", len(boxes))
	}
}

// A plan without steps is a graph too.
func TestGraphOfNothing(t *testing.T) {
	drawn(t, mermaidOfPlan(t, &Plan{}, GraphDepth), `s_nothing("nothing to do")`)
}

// Two paths never become one box, and a path keeps its name whatever stands before it.
func TestGraphNames(t *testing.T) {
	step := func(path string) *PlanStep {
		return &PlanStep{Path: path, ID: path, Shape: ShapeStep, Kind: "exec", Effect: "write"}
	}
	plan := &Plan{Steps: []*PlanStep{step("a/b"), step("a_b"), step("a[b]"), step("ä"), step("end")}}
	drawn(t, mermaidOfPlan(t, plan, GraphDepth), "s_a_b --> s_a_b_2", "s_a_b_2 --> s_a_b_3", "s_a_b_3 --> s", "s --> s_end")
}
