package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// results has, for each row, the adjacent turns of each round: the reference's and
// the hold's.
type results map[string][][2]sample

func (r results) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tunit\treference\thold\tratio\twanted\tp50\tp50\tp99\tp99\tCPU each\tCPU each\tratio\t")
	for _, row := range slices.Concat(reading, writing) {
		pairs := r[row.name]
		if len(pairs) == 0 {
			continue
		}
		mid := func(f func([2]sample) float64) float64 { return median(pairs, f) }
		at := func(i int, f func(sample) time.Duration) time.Duration {
			return time.Duration(mid(func(p [2]sample) float64 { return float64(f(p[i])) })).Round(10 * time.Microsecond)
		}
		p50 := func(s sample) time.Duration { return s.p50 }
		p99 := func(s sample) time.Duration { return s.p99 }
		cpu := func(s sample) time.Duration { return s.cpu / time.Duration(max(1, s.done)) }
		if row.unit == "commits/s" {
			p50 = func(s sample) time.Duration { return s.mean }
		}
		wanted := "-"
		if row.want > 0 {
			wanted = fmt.Sprintf("%.0f x", row.want)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.1f x\t%s\t%v\t%v\t%v\t%v\t%v\t%v\t%.1f x\t\n", row.name, row.unit,
			mid(func(p [2]sample) float64 { return p[0].rate }),
			mid(func(p [2]sample) float64 { return p[1].rate }),
			mid(func(p [2]sample) float64 { return p[1].rate / p[0].rate }),
			wanted, at(0, p50), at(1, p50), at(0, p99), at(1, p99), at(0, cpu), at(1, cpu),
			mid(func(p [2]sample) float64 { return float64(cpu(p[0])) / max(1, float64(cpu(p[1]))) }))
	}
	w.Flush()
	fmt.Fprintln(out, "\nThe reference's columns come first. The times of \"commit to frame\" are means from the response to the frame; wanted: at most 5 ms.")
}

func median(pairs [][2]sample, f func([2]sample) float64) float64 {
	values := make([]float64, len(pairs))
	for i, p := range pairs {
		values[i] = f(p)
	}
	slices.Sort(values)
	n := len(values)
	return (values[n/2] + values[(n-1)/2]) / 2
}
