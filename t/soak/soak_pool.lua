-- The bytes that messages are cut from: no two stretches of it are alike, so that a piece in the
-- wrong place is noticed. Made once, in the master.

local segment = {}
for i = 1, 4088 do
    segment[i] = string.char((i * i * 31 + i * 7) % 256)
end
segment = table.concat(segment)

local list = {}
for i = 1, 544 do   -- somewhat more than 2 MB
    list[i] = string.format("%08d", i) .. segment
end
return table.concat(list)
