package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// results holds the samples of every row, concurrency and server, by round.
type results map[key]map[int]sample

type key struct {
	row         string
	concurrency int
	server      string
}

func (r results) add(row row, concurrency int, s *server, round int, got sample) {
	k := key{row.name, concurrency, s.name}
	if r[k] == nil {
		r[k] = map[int]sample{}
	}
	r[k][round] = got
}

// print writes a table. The other servers are compared with the first one round by
// round; the columns with × have the median of the ratios.
func (r results) print(w io.Writer, servers []*server) {
	fmt.Fprintf(w, "\n%-20s %3s  %-14s %26s  %17s  %9s %9s  %22s  %17s\n",
		"", "c", "", "operations/s (min-max)", "× plain", "p50 ms", "p99 ms", "CPU µs/op (min-max)", "× plain")
	for _, row := range rows {
		for _, c := range concurrencies {
			base := r[key{row.name, c, servers[0].name}]
			for i, s := range servers {
				got := r[key{row.name, c, s.name}]
				name, at := "", ""
				if i == 0 {
					name, at = row.name, fmt.Sprint(c)
				}
				rate := func(s sample) float64 { return s.rate }
				cpu := func(s sample) float64 { return micros(s.cpu) }
				fmt.Fprintf(w, "%-20s %3s  %-14s %26s  %17s  %9.2f %9.2f  %22s  %17s\n", name, at, s.name,
					spread(got, rate, "%.0f"), ratio(got, base, rate, i),
					middle(got, func(s sample) float64 { return micros(s.p50) / 1000 }),
					middle(got, func(s sample) float64 { return micros(s.p99) / 1000 }),
					spread(got, cpu, "%.0f"), ratio(got, base, cpu, i))
			}
		}
		fmt.Fprintln(w)
	}
	for _, s := range servers {
		fmt.Fprintf(w, "%-14s memory (RSS) idle %.0f MB, after the load %.0f MB", s.name, s.idleMB, s.memoryMB())
		if s.busy > 0 {
			fmt.Fprintf(w, "; %d times not idle after a turn", s.busy)
		}
		fmt.Fprintln(w)
	}
}

func values(samples map[int]sample, of func(sample) float64) []float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all
}

func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func middle(samples map[int]sample, of func(sample) float64) float64 {
	return median(values(samples, of))
}

func spread(samples map[int]sample, of func(sample) float64, format string) string {
	all := values(samples, of)
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprintf(format+" ("+format+"-"+format+")", median(all), all[0], all[len(all)-1])
}

// ratio compares two servers round by round.
func ratio(samples, base map[int]sample, of func(sample) float64, server int) string {
	if server == 0 {
		return ""
	}
	var all []float64
	for round, s := range samples {
		if b := of(base[round]); b > 0 {
			all = append(all, of(s)/b)
		}
	}
	if len(all) == 0 {
		return "-"
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f (%.2f-%.2f)", median(all), all[0], all[len(all)-1])
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
