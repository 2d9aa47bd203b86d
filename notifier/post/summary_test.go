package post

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// noon is the time of the summaries' posts.
var noon = time.Date(2031, 5, 6, 12, 30, 0, 0, time.UTC)

func repositories(format string, n int, versions ...string) []RepositoryVersions {
	var list []RepositoryVersions
	for _, name := range numbered(format, n) {
		list = append(list, RepositoryVersions{name, versions})
	}
	return list
}

var summaryCases = []struct {
	name    string
	summary Summary
	starts  string // of the text
	ends    string
}{
	{"two repositories", Summary{
		Images: 3, Repositories: []RepositoryVersions{{"oss/app", []string{"v1.2.3", "v1.2.4"}}, {"oss/db", []string{"v2"}}},
	}, "3 images were pushed between 09:10 and 12:20 UTC: ", ": oss/app v1.2.3, v1.2.4; oss/db v2"},
	{"more than are named", Summary{
		Images: 12, Repositories: []RepositoryVersions{{"oss/app", []string{"v1.2.3", "v1.2.4"}}, {"oss/db", []string{"v2"}}},
		Link: "https://registry.example.com/",
	}, "12 images were pushed between 09:10 and 12:20 UTC: ", "oss/db v2 and 9 more"},
	{"one image", Summary{
		Until: noon.Add(-200 * time.Minute), Images: 1, Repositories: []RepositoryVersions{{"oss/app", []string{"v1.2.3"}}},
	}, "1 image was pushed at 09:10 UTC: ", "oss/app v1.2.3"},
	{"since yesterday", Summary{
		Since: noon.Add(-24 * time.Hour), Images: 1, Repositories: []RepositoryVersions{{"oss/app", []string{"v1.2.3"}}},
	}, "1 image was pushed between 5 May 12:30 and 6 May 12:20 UTC: ", "oss/app v1.2.3"},
	{"no repositories", Summary{Images: 40_000}, "40000 images were pushed between 09:10 and 12:20 UTC", " UTC"},
	{"fewer images than versions", Summary{Repositories: repositories("app%d", 2, "v1")}, "2 images were ", "app0 v1; app1 v1"},
	{"many versions", Summary{
		Images: 500, Repositories: []RepositoryVersions{{"oss/app", numbered("v1.%d", 400)}, {"oss/db", []string{"v2"}}},
	}, "500 images were ", "; oss/db v2 and 467 more"},
	{"many repositories", Summary{
		Images: 4000, Repositories: repositories("team/app%04d", 2000, "v1", "v2"),
	}, "4000 images were ", "; team/app0012 v1 and 3987 more"},
	{"longest names", Summary{
		Images: 2, Repositories: []RepositoryVersions{{strings.Repeat("a", 255), []string{strings.Repeat("t", 128)}}, {"oss/db", []string{"v2"}}},
	}, "2 images were pushed between 09:10 and 12:20 UTC: aaa", "ttt and 1 more"},
	{"a version that does not fit", Summary{
		Images: 1, Repositories: []RepositoryVersions{{"oss/app", []string{strings.Repeat("t", 400)}}},
	}, "1 image was pushed between", " UTC"},
	{"hostile names", Summary{
		Repositories: []RepositoryVersions{{"oss/app\n\u202e", []string{"v1\nhttps://evil.example", "\x00", "v\xff"}}, {"\n", []string{"v1"}}, {"app", nil}},
	}, "2 images were", ": oss/app v1 https://evil.example, v\uFFFD"},
}

func TestComposeSummary(t *testing.T) {
	t.Parallel()
	for _, tc := range summaryCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := tc.summary
			if s.Since.IsZero() {
				s.Since = noon.Add(-200 * time.Minute)
			}
			if s.Until.IsZero() {
				s.Until = noon.Add(-10 * time.Minute)
			}
			record, err := ComposeSummary(s, []string{"en"}, noon)
			if err != nil {
				t.Fatal(err)
			}
			validate(t, record)
			text := record["text"].(string)
			if !strings.HasPrefix(text, tc.starts) || !strings.HasSuffix(text, tc.ends) {
				t.Errorf("got %q, want %q … %q", text, tc.starts, tc.ends)
			}
			if n := graphemes(text); n > 300 || len(text) > 3000 || !utf8.ValidString(text) || strings.Contains(text, "\n") {
				t.Errorf("got %d graphemes in %d bytes: %q", n, len(text), text)
			}
			facets, _ := record["facets"].([]any)
			if len(facets) != min(1, len(s.Link)) {
				t.Errorf("got %d facets", len(facets))
			}
			for _, facet := range facets {
				if start, end := span(facet); text[start:end] != strings.Join(strings.Fields(text)[:2], " ") {
					t.Errorf("got a facet on %q", text[start:end])
				}
			}
			golden(t, "summary of "+tc.name, record)
		})
	}
	if _, err := ComposeSummary(Summary{Images: 1, Link: "javascript:alert(1)"}, nil, noon); err == nil {
		t.Error("invalid link: got no error")
	}
}
