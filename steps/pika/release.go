package pika

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Release is a release of Pika.
type Release struct {
	Major, Minor, Patch int
	Text                string // as given
}

// ParseRelease reads a release such as 3.4.0 or v2.3.6; what follows the third number (-rc1) is kept in Text alone.
func ParseRelease(text string) (Release, error) {
	r := Release{Text: text}
	rest := strings.TrimPrefix(strings.TrimSpace(text), "v")
	for i, part := range []*int{&r.Major, &r.Minor, &r.Patch} {
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		n, err := strconv.Atoi(digits)
		if err != nil {
			return Release{}, fmt.Errorf("%q is no release, such as 3.4.0", text)
		}
		*part, rest = n, rest[len(digits):]
		if i == 2 {
			break
		}
		var dot bool
		if rest, dot = strings.CutPrefix(rest, "."); !dot {
			return Release{}, fmt.Errorf("%q is no release, such as 3.4.0", text)
		}
	}
	return r, nil
}

// Known is false for the zero Release: nobody told.
func (r Release) Known() bool { return r.Text != "" }

func (r Release) String() string { return r.Text }

// Compare orders releases by their numbers.
func (r Release) Compare(o Release) int {
	return cmp.Or(cmp.Compare(r.Major, o.Major), cmp.Compare(r.Minor, o.Minor), cmp.Compare(r.Patch, o.Patch))
}

// atLeast compares with a release of these numbers.
func (r Release) atLeast(major, minor, patch int) bool {
	return r.Compare(Release{Major: major, Minor: minor, Patch: patch}) >= 0
}

// between tells a release from the first up to, and not with, the second.
func (r Release) between(from, to [3]int) bool {
	return r.atLeast(from[0], from[1], from[2]) && !r.atLeast(to[0], to[1], to[2])
}

// Problem is something that stands between a release and what is wanted of it.
type Problem struct {
	Name    string `yaml:"name" doc:"Short name, such as releases-do-not-replicate."`
	About   string `yaml:"about" doc:"What it is about: replication, codis-sync, codis-semi-async, or use (whatever the server is used for)."`
	Blocks  bool   `yaml:"blocks" doc:"It makes that impossible or unsafe; otherwise it is to be known."`
	Message string `yaml:"message" doc:"What is so, and why it matters."`
	Fix     string `yaml:"fix" doc:"What to do about it."`
}

// families are the releases that replicate among each other: those from the first number up to, and not with, the second.
var families = [...]struct{ from, to [3]int }{
	{[3]int{2, 0, 0}, [3]int{2, 3, 3}},
	{[3]int{2, 3, 3}, [3]int{3, 0, 0}},
	{[3]int{3, 0, 0}, [3]int{3, 1, 0}},
	{[3]int{3, 1, 0}, [3]int{3, 2, 0}},
	{[3]int{3, 2, 0}, [3]int{3, 5, 0}},
	{[3]int{3, 5, 0}, [3]int{4, 0, 0}},
	{[3]int{4, 0, 0}, [3]int{5, 0, 0}},
}

func (r Release) family() int {
	for i, f := range families {
		if r.between(f.from, f.to) {
			return i
		}
	}
	return -1
}

// replicates tells why two releases cannot replicate; nil: they can, as far as their numbers tell.
func replicates(a, b Release) *Problem {
	p := Problem{Name: "releases-do-not-replicate", About: "replication", Blocks: true}
	switch {
	case !a.Known() || !b.Known():
		p.Name, p.Message = "release-unknown", "a server does not tell its release"
		p.Fix = "set release in the target"
		return &p
	case a.family() < 0 || a.family() != b.family():
		p.Message = fmt.Sprintf("releases %s and %s do not replicate with each other, though slaveof says OK", a, b)
		p.Fix = "move the keys by Codis' slot migration, or by a tool, instead of by replication"
		if !a.atLeast(3, 0, 0) && !b.atLeast(3, 0, 0) {
			p.Message += ": 2.3.3 brought the authentication of server ids, and a replica of the other side says connected and online and gets nothing"
		}
		return &p
	}
	return nil
}
