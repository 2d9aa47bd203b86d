package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
)

// A listing prints the rows of a list of the admin API, which come in pages of type P.
type listing[P, R any] struct {
	path   string
	query  url.Values
	limit  int                                // of rows
	page   int                                // rows that are asked for at once
	rows   func(*P) (rows []R, cursor string) // of a page, and the cursor of the next one
	line   func(*R) string                    // its columns are separated by tabs
	asJSON bool                               // one object a line
	none   string                             // is logged if there is no row, unless asJSON
}

func (l *listing[P, R]) print(ctx context.Context, c *adminClient, out io.Writer) error {
	if l.limit < 1 {
		return fmt.Errorf("--limit %d is invalid; it must be at least 1", l.limit)
	}
	w := cli.NewTable(out)
	defer w.Flush()
	printed := 0
	for left := l.limit; left > 0; {
		l.query.Set("limit", strconv.Itoa(min(left, l.page)))
		page := new(P)
		if err := c.call(ctx, "GET", l.path, l.query, page); err != nil {
			return err
		}
		rows, cursor := l.rows(page)
		for i := range rows {
			if !l.asJSON {
				fmt.Fprintln(w, l.line(&rows[i]))
			} else if err := cli.PrintLine(out, &rows[i]); err != nil {
				return err
			}
		}
		printed += len(rows)
		if left -= len(rows); cursor == "" {
			break
		}
		l.query.Set("cursor", cursor)
	}
	if printed == 0 && !l.asJSON {
		fmt.Fprintln(c.log, l.none)
	}
	return nil
}
