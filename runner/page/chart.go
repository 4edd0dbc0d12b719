package page

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	chartWidth, chartHeight = 440.0, 120.0
	chartLeft, chartTop     = 58.0, 8.0
	mostCharts              = 40
	mostPoints              = 400 // of one line
)

// chart is what a wait saw of one number.
type chart struct {
	Step, Name, Until string
	Width, Height     float64
	Line              string // points of a polyline
	Dots              []dot  // where there are few
	Levels            []level
	Ticks             []tick
	Bottom            float64
	Threshold         *level
	Last              string
}

type dot struct{ X, Y float64 }

type level struct {
	Y     float64
	Label string
}

// charts draws what the waits saw, as far as it is numbers and more than one look.
func charts(s *story) (list []chart, more int) {
	for _, w := range s.Rows {
		for _, name := range numbersOf(w.Seen) {
			if len(list) == mostCharts {
				more++
				continue
			}
			list = append(list, plot(w, name))
		}
	}
	return list, more
}

// numbersOf names the operands that are numbers at two looks at least, and not always the same one.
func numbersOf(seen []sight) []string {
	looks, differ, first := map[string]int{}, map[string]bool{}, map[string]float64{}
	for _, s := range seen {
		for name, v := range s.Values {
			n, ok := amount(v)
			if !ok {
				continue
			}
			if looks[name]++; looks[name] == 1 {
				first[name] = n
			}
			differ[name] = differ[name] || n != first[name]
		}
	}
	var names []string
	for name, n := range looks {
		if n >= 2 && differ[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// amount is a value as a number; durations are texts in the journal, here they are seconds.
func amount(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case string:
		d, err := time.ParseDuration(v)
		return d.Seconds(), err == nil
	}
	return 0, false
}

func plot(w *row, name string) chart {
	c := chart{Step: w.Path, Name: name, Until: w.Until, Width: chartLeft + chartWidth + 12, Height: chartTop + chartHeight + 22, Bottom: chartTop + chartHeight}
	var at []time.Time
	var values []float64
	for _, s := range w.Seen {
		if n, ok := amount(s.Values[name]); ok {
			at, values = append(at, s.At), append(values, n)
		}
	}
	c.Last = human(values[len(values)-1])
	low, high := min(0, slices.Min(values)), max(slices.Max(values), 0)
	bound, bounded := threshold(w.Until, name)
	if bounded && bound <= 4*max(high, 1) {
		low, high = min(low, bound), max(high, bound)
	}
	if low == high {
		high = low + 1
	}
	y := func(v float64) float64 { return round(c.Bottom - chartHeight*(v-low)/(high-low)) }
	whole := at[len(at)-1].Sub(at[0])
	x := func(t time.Time) float64 {
		return round(chartLeft + chartWidth*float64(t.Sub(at[0]))/float64(max(whole, 1)))
	}
	for _, v := range []float64{low, (low + high) / 2, high} {
		c.Levels = append(c.Levels, level{y(v), human(v)})
	}
	if bounded && bound >= low && bound <= high {
		c.Threshold = &level{y(bound), human(bound)}
	}
	step := roundStep(whole / 5)
	for d := time.Duration(0); d <= whole; d += step {
		c.Ticks = append(c.Ticks, tick{x(at[0].Add(d)), "+" + shortLength(d)})
	}
	var points strings.Builder
	every := max(1, len(at)/mostPoints)
	for i := range at {
		if i%every != 0 && i != len(at)-1 && values[i] != high {
			continue
		}
		fmt.Fprintf(&points, "%g,%g ", x(at[i]), y(values[i]))
		if len(at) <= 60 {
			c.Dots = append(c.Dots, dot{x(at[i]), y(values[i])})
		}
	}
	c.Line = strings.TrimSpace(points.String())
	return c
}

// threshold is the number that a condition compares a name with, where it says so plainly: lag == 0, lag < 1000.
func threshold(condition, name string) (float64, bool) {
	plain := regexp.MustCompile(`(?:^|[^\w.])` + regexp.QuoteMeta(name) + `\s*(?:==|<=|>=|<|>)\s*(-?[0-9][0-9_]*(?:\.[0-9]+)?)\b`)
	m := plain.FindStringSubmatch(condition)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseFloat(strings.ReplaceAll(m[1], "_", ""), 64)
	return n, err == nil
}

// human is a number of three digits.
func human(v float64) string {
	for _, u := range []struct {
		from, unit float64
		word       string
	}{{1e12, 1e12, " T"}, {1e9, 1e9, " G"}, {1e6, 1e6, " M"}, {1e4, 1e3, " k"}} {
		if math.Abs(v) >= u.from {
			return strconv.FormatFloat(v/u.unit, 'g', 3, 64) + u.word
		}
	}
	if math.Abs(v) >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func round(v float64) float64 { return math.Round(v*10) / 10 }
