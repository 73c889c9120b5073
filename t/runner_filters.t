# Filters of section values, by themselves; runs under the original too.
use Test::Nginx::Socket 'no_plan';

sub shout { map { uc } @_ }

sub upper { map { uc } @_ }

sub star { s/^/* /gm; return }

filters({ always => ['chomp'] });

is blocks() + 0, 3, 'SKIP takes a block away';

my ($one, $two, $three) = blocks();
is $one->name, 'TEST 1: values', 'name';
is $one->plain, "a\n\nb\n", 'blank lines go at both ends only';
is $one->one_line, 'x y', 'one line: no newline, no blanks around';
is $one->one_line_empty, '', 'an empty one-line value';
is $one->colon, 'http://a:1/', 'a colon within the value';
is $one->missing, undef, 'no such section';
is $one->always, 'end', 'a filter of the file';
is $one->description, 'TEST 1: values', 'description';

is $two->chomped, "a\nb", 'chomp';
is $two->chopped, "a\nb", 'chop';
is $two->evaluated, "tab\there", 'eval';
is_deeply $two->list, ['a', { b => 1 }], 'eval to a reference';
is_deeply [$two->lines_of], ["a\n", "b\n"], 'lines';
is $two->joined, 'a-b', 'lines chomp join=-';
is_deeply $two->arrayed, ["a\n", "b\n"], 'lines array';
is $two->appended, "a!\n", 'chomp append=! unchomp';
is $two->prepended, '> a', 'prepend';
is_deeply [$two->words], [qw(a b c)], 'split';
is_deeply [$two->parts], [qw(a b c)], 'split=,';
is $two->encoded, "aGk=\n", 'base64_encode';
is $two->escaped, "a\tb", 'escape';
like 'foobar', $two->pattern, 'regexp';
is $two->own, 'LOUD', 'a function of the file';
is $two->munged, '* a', 'a function that changes $_';
is $two->raw, "\na\n\n", 'norm and trim can be taken away';
is_deeply [$two->sorted], ["c\n", "b\n", "a\n"], 'lines sort reverse';
is $two->headed, "a\n", 'lines head';
is $two->tailed, "c\n", 'lines tail';
is $two->late, "A\n", '+filter goes last';

is $three->text, "--- not a section\n", 'a line that only looks like one';

__DATA__

=== TEST 1: values
--- plain

a

b


--- one_line:   x y  
--- one_line_empty:
--- colon: http://a:1/
--- always
end



=== TEST 2: filters
--- chomped chomp
a
b
--- chopped chop
a
b
--- evaluated eval
"tab\t" . 'here'
--- list eval
["a", { b => 1 }]
--- lines_of lines
a
b
--- joined lines chomp join=-
a
b
--- arrayed lines array
a
b
--- appended chomp append=! unchomp
a
--- prepended chomp prepend=>\s
a
--- words split
a b c
--- parts chomp split=,
a,b,c
--- encoded chomp base64_encode
hi
--- escaped chomp escape
a\tb
--- pattern regexp
^foo.ar$
--- own chomp shout
loud
--- munged chomp star
a
--- raw -trim

a

--- sorted lines sort reverse
b
c
a
--- headed lines head
a
b
--- tailed lines tail
b
c
--- late +upper chomp append=\n
a



=== TEST 3: skipped
--- SKIP
--- text
never



=== TEST 4: text
--- text eval
"--- not a section\n"
