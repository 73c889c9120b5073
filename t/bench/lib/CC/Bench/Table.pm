package CC::Bench::Table;

# Answers as a Markdown table: a row for each case and metric, a column for
# each peer, in a cell the median and, with several rounds, least and most.

use v5.36;

sub median (@values) {
    my @sorted = sort { $a <=> $b } @values;
    my $middle = int(@sorted / 2);
    return @sorted % 2 ? $sorted[$middle] : ($sorted[ $middle - 1 ] + $sorted[$middle]) / 2;
}

sub number ($value, $format) {
    return $value if $format eq 'text';
    if ($format eq 'count') {
        return sprintf '%.3g M', $value / 1e6 if $value >= 999_500;
        return sprintf '%.0f k', $value / 1e3 if $value >= 99_950;
        return sprintf '%.3g k', $value / 1e3 if $value >= 1_000;
    }
    return sprintf '%.0f', $value if abs $value >= 99.95 || $value == int $value;
    return sprintf abs $value >= 10 ? '%.1f' : '%.2f', $value;
}

sub cell ($answers, $key, $format, $notes, $first) {
    return '' if !$answers;
    my @good   = grep { !$_->{error} } @$answers;
    my ($bad)  = grep { $_->{error} } @$answers;
    my $mark   = '';
    if ($bad) {
        my $note = $bad->{error} =~ s/\s+/ /gr;
        push @$notes, $note if !grep { $_ eq $note } @$notes;
        my ($at) = grep { $notes->[$_] eq $note } 0 .. $#$notes;
        $mark = ' [' . ($at + 1) . ']';
    }
    my @values = grep { defined } map { $_->{$key} } @good;
    $mark = '' if !$first;
    return $mark ? "failed$mark" : '' if !@values;
    return "$values[0]$mark" if $format eq 'text';
    my $cut  = grep({ $_->{cut} } @good) ? '~' : '';
    my $text = $cut . number(median(@values), $format);
    if (@values > 1) {
        my @sorted = sort { $a <=> $b } @values;
        $text .= ' (' . number($sorted[0], $format) . ' - ' . number($sorted[-1], $format) . ')';
    }
    return $text . $mark;
}

sub ratio ($of_case, $key, $ours, $other) {
    my ($mine, $its) = map {
        my @v = grep { defined } map { $_->{error} ? undef : $_->{$key} } @{ $of_case->{$_} // [] };
        @v ? median(@v) : undef;
    } $ours, $other;
    return defined $mine && $its && $its > 0 ? sprintf('%.2f x', $mine / $its) : '';
}

# $peers in the order of the columns.
sub markdown ($work, $peers, $result) {
    my @names = grep { my $n = $_; grep { $_->{$n} } values %$result } map { $_->{name} } @$peers;
    return if !@names;
    my %there = map { $_ => 1 } @names;
    my ($ours) = map { $_->{name} } grep { $_->{kind} eq 'ours' && $there{ $_->{name} } } @$peers;
    my @against = defined $ours ? grep { $there{$_} } @{ $work->{against} // ['ngx_lua_ipc'] } : ();
    # and of others with each other
    my @pairs = grep { $there{ $_->[0] } && $there{ $_->[1] } } @{ $work->{ratios} // [] };
    @pairs = ((map { [ $ours, $_ ] } @against), @pairs);
    my (@rows, @notes);
    for my $case (@{ $work->{cases} }) {
        my $of_case = $result->{ $case->{name} } // next;
        for my $metric (@{ $work->{metrics} }) {
            my ($key, $label, $format, $if_any) = @$metric;
            next if $if_any && !grep { $_->{$key} && $_->{$key} > 0 } map { @$_ } values %$of_case;
            my $first = $key eq $work->{metrics}[0][0];
            push @rows, [ $first ? $case->{name} : '', $label,
                (map { cell($of_case->{$_}, $key, $format, \@notes, $first) } @names),
                (map { $format eq 'text' || $key =~ /^(?:cores|full|lost|bad)$/ ? ''
                    : ratio($of_case, $key, @$_) } @pairs) ];
        }
    }
    my @head = ('', '', @names, map { "$_->[0] / $_->[1]" } @pairs);
    my $text = "## $work->{title}\n\n" . aligned(\@head, [ map { '---' } @head ], @rows);
    $text .= "\n" . join '', map { '[' . ($_ + 1) . "] $notes[$_]\n" } 0 .. $#notes if @notes;
    $text .= "\n$work->{note}\n" if $work->{note};
    $text .= "\n~ cut short: it would have taken too long\n" if $text =~ /~/;
    return $text;
}

# Columns of equal width, for those who read it in a terminal.
sub aligned (@rows) {
    my @width;
    for my $row (@rows) {
        for my $i (0 .. $#$row) {
            my $length = length $row->[$i];
            $width[$i] = $length if $length > ($width[$i] // 0);
        }
    }
    return join '', map {
        my $row = $_;
        '| ' . join(' | ', map { sprintf "%-$width[$_]s", $row->[$_] } 0 .. $#$row) . " |\n";
    } @rows;
}

1;
